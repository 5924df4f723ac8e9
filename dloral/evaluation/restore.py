"""Restore a clip by a method, measure it, and time it: what studies and benchmarks share.

A method is a function from a small clip's frames to its frames at the requested size.
Frames are streamed, so memory does not grow with the clip's length.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain

import torch
from torch import Tensor

from dloral.errors import InputError
from dloral.evaluation.baselines import Upscaler
from dloral.evaluation.catalogue import MetricSuite
from dloral.evaluation.measures import FrameSet, Measured, in_step, measure_steps
from dloral.frame_generator import FrameGenerator
from dloral.frames.resize import enlargement, resize_bicubic
from dloral.options import AUTO_TILE, UpscaleOptions

Size = tuple[int, int]
"""Height and width in pixels."""

Restorer = Callable[[Iterable[Tensor], Size], Iterator[Tensor]]
"""Small frames (3,h,w) in [0, 1], and the size that is wanted -> frames (3,H,W) in [0, 1]."""


@dataclass(frozen=True)
class Scales:
    """How a model is run: scales of C-LoRA and D-LoRA, earlier frames that CFR uses, and the
    bicubic kernel of its input (torch or pil).

    Raises :class:`OptionError` for values that :class:`dloral.options.UpscaleOptions` rejects.
    """

    consistency: float = 1.0
    detail: float = 1.0
    window: int = 1
    bicubic: str = "torch"

    def __post_init__(self) -> None:
        UpscaleOptions(**asdict(self))

    @property
    def label(self) -> str:
        """``c=1 d=0.5``, with the window and the bicubic kernel if they are not the defaults."""
        label = f"c={self.consistency:g} d={self.detail:g}"
        label += "" if self.window == 1 else f" w={self.window}"
        return label if self.bicubic == "torch" else f"{label} {self.bicubic}"


@dataclass(frozen=True)
class Restored:
    """A clip's figures, seconds taken to restore a frame, and its last frames."""

    measured: Measured
    seconds: float
    last: FrameSet


def model_restorer(pipe: FrameGenerator, scales: Scales) -> Restorer:
    """The model, on frames enlarged by bicubic; tiled as ``dloral upscale`` does by default."""

    def restore(small_frames: Iterable[Tensor], size: Size) -> Iterator[Tensor]:
        small = iter(small_frames)
        first = next(small, None)
        if first is None:
            return
        yield from pipe.stream(
            (resize_bicubic(f[None], *size, scales.bicubic)[0] for f in chain([first], small)),
            consistency=scales.consistency,
            detail=scales.detail,
            window=scales.window,
            tile=AUTO_TILE,
            enlarged=enlargement((first.shape[1], first.shape[2]), size),
        )

    return restore


def baseline_restorer(upscaler: Upscaler) -> Restorer:
    """A baseline, frame by frame; shrunk to the size (area) where it enlarges more than asked."""

    def restore(small_frames: Iterable[Tensor], size: Size) -> Iterator[Tensor]:
        for frame in small_frames:
            large = upscaler(frame)
            if large.shape[-2:] != size:
                large = torch.nn.functional.interpolate(large[None], size, mode="area")[0]
            yield large

    return restore


def bicubic(small_frames: Iterable[Tensor], size: Size) -> Iterator[Tensor]:
    """The enlargement that everything is compared with, and the input of the models."""
    return (resize_bicubic(frame[None], *size)[0] for frame in small_frames)


class Stopwatch:
    """Time spent in one iterator, minus the time spent in the one it reads from."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def outer(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        while True:
            started = time.perf_counter()
            frame = next(frames, None)
            self.seconds += time.perf_counter() - started
            if frame is None:
                return
            yield frame

    def inner(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        iterator = iter(frames)
        while True:
            started = time.perf_counter()
            frame = next(iterator, None)
            self.seconds -= time.perf_counter() - started
            if frame is None:
                return
            yield frame


def restore_and_measure(
    restorer: Restorer,
    small_frames: Iterable[Tensor],
    size: Size,
    suite: MetricSuite,
    hq_frames: Iterable[Tensor] | None = None,
    on_frame: Callable[[FrameSet], None] | None = None,
) -> Restored:
    """Restore ``small_frames`` (3,h,w) to ``size`` and measure them against ``hq_frames``.

    Measures that need the input see it enlarged by bicubic. ``on_frame`` gets every frame.
    Raises :class:`InputError` for a clip without frames, or clips of different lengths.
    """
    watch = Stopwatch()
    waiting: deque[Tensor] = deque()

    def remembered() -> Iterator[Tensor]:
        for frame in small_frames:
            waiting.append(frame)
            yield frame

    def enlarged() -> Iterator[Tensor]:
        while waiting:  # in_step requests the restored frame first, so its input is already here
            yield resize_bicubic(waiting.popleft()[None], *size)[0]

    restored = (f.float() for f in watch.outer(restorer(watch.inner(remembered()), size)))
    measured, last = Measured(), None

    def shown() -> Iterator[FrameSet]:
        nonlocal last
        for last in in_step(restored, hq_frames, enlarged()):
            if on_frame is not None:
                on_frame(last)
            yield last

    for measured in measure_steps(shown(), suite.measures(), suite.settings.every):  # noqa: B007
        pass
    if last is None:
        raise InputError("the clip has no frames", remedy="give another clip")
    return Restored(measured, watch.seconds / measured.num_frames, last)
