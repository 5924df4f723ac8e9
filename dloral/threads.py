"""How the networks' threads wait for each other, and how many cores are available to them."""

import math
import os
import sys
from pathlib import Path

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


SPINS = "1000"
"""Turns, some microseconds: what OpenMP itself takes where it has more threads than cores. Threads
that slept at once took 0.151 s for a frame of 512 x 512 on two cores at rest, with this 0.125."""

_LINUX = {"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "200"}
"""Each thread of Python that has computed keeps a team of OpenMP's threads while it lives. Once
these are more than the cores, GNU's OpenMP lets all of them sleep after a hundred turns, unless the
policy is "active": a second thread that had computed once and then did nothing made a frame of
512 x 512 take 0.165 s instead of 0.125. LLVM's and Intel's would spin for ever with that policy, so
they are told their own default, in milliseconds."""


def let_threads_sleep() -> None:
    """Make waiting OpenMP threads go to sleep soon, unless the environment says how they wait.
    Call this before importing torch, since its OpenMP reads the setting only once.

    By default they spin. Where other programs want the processor too, a spinning thread takes the
    time that the one it waits for needs: on two busy cores a frame of 256 x 256 pixels took
    3.3 s and 1.5 s of processor time; with sleeping threads, 0.7 s and 0.2 s.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPINS
        if sys.platform == "linux":
            os.environ.update(_LINUX)


def available_cores(control: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use, at least 1: its affinity and its container's share count.

    ``control``: the folder of this process's control group (Linux).
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = (control / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
