"""How threads of the networks wait."""

import os

import pytest

from dloral.threads import let_threads_sleep


def test_threads_sleep_soon_when_they_wait(monkeypatch: pytest.MonkeyPatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    let_threads_sleep()
    assert int(os.environ["GOMP_SPINCOUNT"]) <= 1000


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "100")]
)
def test_what_the_environment_says_stands(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    for other in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    let_threads_sleep()
    assert os.environ[name] == value
    assert os.environ.get("GOMP_SPINCOUNT") == (value if name == "GOMP_SPINCOUNT" else None)
