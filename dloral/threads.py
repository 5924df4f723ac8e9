"""How threads of the networks wait for each other."""

import os

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they wait for each other, unless the environment says
    how they wait. To be called before torch is imported, for its OpenMP reads this only once.

    By default they spin. Where other programs want the processor too, a thread that spins takes
    the time that the one it waits for needs: on two busy cores a frame of 256 x 256 pixels took
    3.3 s and 1.5 s of processor time; with threads that sleep, 0.7 s and 0.2 s.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
