"""How threads of the networks wait, and how many cores there are."""

import os
from pathlib import Path

import pytest

from dloral.threads import available_cores, let_threads_sleep


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


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1), ("6400000 100000", 8), ("?", 8)],
)
def test_a_containers_share_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert available_cores(tmp_path) == expected
    assert available_cores(tmp_path / "absent") == 8
