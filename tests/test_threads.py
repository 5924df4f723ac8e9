"""How threads of the networks wait, and how many cores there are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dloral.threads import available_cores, let_threads_sleep

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def _forget_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the test ends, whatever it sets instead."""
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_threads_sleep_soon_when_they_wait(monkeypatch: pytest.MonkeyPatch):
    _forget_all(monkeypatch)
    let_threads_sleep()
    assert int(os.environ["GOMP_SPINCOUNT"]) <= 1000


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is what torch has on Linux")
def test_gnus_openmp_spins_as_long_beside_other_threads():
    """Its policy decides how long threads spin once there are more of them than cores."""
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    code = "from dloral.threads import let_threads_sleep; let_threads_sleep(); import torch"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"OMP_DISPLAY_ENV": "VERBOSE"},
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in told
    assert "GOMP_SPINCOUNT = '1000'" in told


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "100")]
)
def test_what_the_environment_says_stands(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    _forget_all(monkeypatch)
    monkeypatch.setenv(name, value)
    let_threads_sleep()
    assert "KMP_BLOCKTIME" not in os.environ
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
