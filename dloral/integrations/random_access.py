"""Any restored frame of a clip, asked for in any order, the same as in an unbroken run.

Output t depends on the input t and on the few before it that the model's ``reach`` says. So a frame
that is asked for out of order is restored behind those, and in order nothing is done twice.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

from torch import Tensor

from dloral.frame_generator import FrameGenerator
from dloral.integrations.memory_clips import restored_frames
from dloral.options import UpscaleOptions

KEPT = 16
"""Restored frames that are kept for who asks again."""

AHEAD = 8
"""Frames that are passed over at the most, rather than begun anew behind them."""


class FrameServer:
    """``read(n)`` gives frame n of ``count``, float (3,H,W) in [0, 1]. Safe for many threads; one
    frame is restored at a time."""

    def __init__(
        self,
        read: Callable[[int], Tensor],
        count: int,
        pipe: FrameGenerator,
        options: UpscaleOptions,
    ) -> None:
        self._read, self._count, self._pipe, self._options = read, count, pipe, options
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._running: Iterator[Tensor] | None = None
        self._next = 0
        self._lock = threading.Lock()

    def frame(self, number: int) -> Tensor:
        """Restored frame ``number``, from 0 on: float (3,H,W) in [0, 1]. IndexError beyond."""
        if not 0 <= number < self._count:
            raise IndexError(f"frame {number} of {self._count}")
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
            if self._running is None or not self._next <= number <= self._next + AHEAD:
                self._begin_at(number)
            while self._next <= number:
                self._keep(self._step())
            return self._kept[number]

    def _begin_at(self, number: int) -> None:
        """A new run whose first frames are only looked at."""
        first = max(number - self._pipe.reach(self._options.window), 0)
        self._next = first
        self._running = restored_frames(
            map(self._read, range(first, self._count)), self._pipe, self._options
        )
        while self._next < number:
            self._step()

    def _step(self) -> Tensor:
        assert self._running is not None
        running, self._running = self._running, None  # a run that fails is not gone on with
        restored = next(running)
        self._running = running
        self._next += 1
        return restored

    def _keep(self, restored: Tensor) -> None:
        self._kept[self._next - 1] = restored
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
