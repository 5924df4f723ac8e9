"""Which frame of a GIF is shown at which time. GIF times are in hundredths of a second, and frames
shown for less than two hundredths are left out (:mod:`dloral.video.animations`)."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from dloral.video.reader import Frame, read_frames

_ROUNDED = Fraction(6, 1000)
"""Seconds by which a frame may start later than in the source."""

_LEAST = Fraction(1, 100)
"""Shortest time that a frame is shown, in seconds, with a margin for rounding."""

_NEAR = 1
"""Seconds before a given time in which the frame shown at it is searched for first."""


def is_gif(result: Path) -> bool:
    return result.suffix == ".gif"


def frame_shown(result: Path, time: Fraction) -> Tensor:
    """The frame a GIF shows at ``time``, in seconds from its first frame: (3,H,W) in [0, 1]."""
    for start in (max(time - _NEAR, Fraction(0)), Fraction(0)):
        shown = None
        with read_frames(result, start=start) as frames:
            for frame in frames:
                if frame.time > time + _ROUNDED:
                    break
                shown = frame.pixels
        if shown is not None:
            return shown
    raise AssertionError("a GIF's first frame begins at 0")


def as_shown(source: Iterable[Frame], restored: Iterator[Frame]) -> Iterator[tuple[Frame, Frame]]:
    """Pair each source frame with the GIF frame shown at that time, up to the end of the GIF, which
    may cover only part of the source."""
    shown, coming = next(restored, None), next(restored, None)
    first = None
    for frame in source:
        first = frame.time if first is None else first
        time = frame.time - first
        while coming is not None and coming.time <= time + _ROUNDED:
            shown, coming = coming, next(restored, None)
        if shown is None or (coming is None and time > shown.time + shown.duration - _LEAST):
            return
        yield frame, shown
