"""What a machine reaches at best: the ceilings that stages are held against."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dloral.devices import synchronize

SIDES = (512, 1024, 2048, 4096, 8192)
ENOUGH_SECONDS = 0.05
"""A product that takes as long is large enough: a slow processor would need minutes for more."""

COPIED_BYTES = 2**28
"""More than caches hold."""

REPEATS = 5


@dataclass(frozen=True)
class Ceilings:
    """``multiply``: operations a second of a large matrix product in the model's precision;
    ``copy``: bytes a second that a large copy reads and writes."""

    multiply: float
    copy: float


def measure_ceilings(place: torch.device, dtype: torch.dtype) -> Ceilings:
    """The best of a few runs each."""
    return Ceilings(_multiply_rate(place, dtype), _copy_rate(place))


def _multiply_rate(place: torch.device, dtype: torch.dtype) -> float:
    rate = 0.0
    for side in SIDES:
        a, b = (torch.full((side, side), 0.5, device=place, dtype=dtype) for _ in range(2))
        result = torch.empty_like(a)
        seconds = _best(lambda a=a, b=b, out=result: torch.mm(a, b, out=out), place)  # type: ignore[misc]
        rate = max(rate, 2 * side**3 / seconds)
        if seconds > ENOUGH_SECONDS:
            break
    return rate


def _copy_rate(place: torch.device) -> float:
    source = torch.zeros(COPIED_BYTES // 4, device=place)
    target = torch.zeros_like(source)
    return 2 * COPIED_BYTES / _best(lambda: target.copy_(source), place)


def _best(work: Callable[[], object], place: torch.device) -> float:
    """Seconds of the fastest of a few runs, after one that is not counted."""
    times = []
    for _ in range(1 + REPEATS):
        synchronize(place)
        started = time.perf_counter()
        work()
        synchronize(place)
        times.append(time.perf_counter() - started)
    return min(times[1:])
