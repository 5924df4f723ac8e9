"""What is asked of the stages (:mod:`dloral.stages`): their seconds, and their arithmetic."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from dloral.devices import synchronize
from dloral.stages import watched_by


class StageSeconds:
    """Seconds of each stage, from all threads; a GPU's work counts where it was asked for."""

    def __init__(self, place: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._place = place
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        synchronize(self._place)
        started = time.perf_counter()
        yield
        synchronize(self._place)
        took = time.perf_counter() - started
        with self._lock:
            self.seconds[name] += took

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self.seconds.clear()


def stage_flops(work: Callable[[], object]) -> dict[str, int]:
    """Floating-point operations of matrix products and convolutions, by stage; a multiplication
    and an addition are two. All others, a few for each number, are not counted."""
    flops: dict[str, int] = defaultdict(int)
    with FlopCounterMode(display=False) as counter:

        @contextmanager
        def count(name: str) -> Iterator[None]:
            before = counter.get_total_flops()
            yield
            flops[name] += counter.get_total_flops() - before

        with watched_by(count):
            work()
    return dict(flops)


def flops_of(work: Callable[[], object]) -> int:
    """Of all of ``work``, as in :func:`stage_flops`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
