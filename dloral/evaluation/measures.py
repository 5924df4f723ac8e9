"""What a measure is, and how measures process a clip frame by frame.

A measure sees a clip's frames in order, one :class:`FrameSet` at a time, and remembers at most a
few of them, so memory does not grow with the clip's length. For every frame it gives one value for
each of its specs, or none where there is none to give (a temporal measure at frame 0). A clip's
figure is the mean over the frames that have a value.

Frames are RGB in [0, 1], float32 (3,H,W), everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from torch import Tensor

from dloral.errors import InputError

CAP_DB = 100.0
"""dB: the PSNR of equal frames, which has no finite value; so one black frame leaves a mean."""


@dataclass(frozen=True)
class MetricSpec:
    """What is printed with a measure's figures.

    ``better``: "lower", "higher" or "near 1". ``scope``: what it compares with: "reference"
    (required), "guide" (uses the reference, else the input, else the clip itself), "alone".
    """

    name: str
    title: str
    unit: str
    span: str
    better: str
    scope: str
    definition: str
    source: str
    digits: int = 4
    """Decimals that a figure is printed with."""
    slow: bool = False
    """Whether a frame takes long on a CPU; ``every`` then leaves frames out."""
    by_ratio: bool = False
    """Whether methods are compared by ratios: clips differ by orders of magnitude, so that the
    largest alone would decide a difference of means."""

    def badness(self, value: float) -> float:
        """The value turned so that lower is better, whichever way the figure itself goes."""
        if self.better == "near 1":
            return abs(value - 1)
        return value if self.better == "lower" else -value


class FrameSet(NamedTuple):
    """One frame of each clip, (3,H,W), all the same size."""

    restored: Tensor
    hq: Tensor | None = None
    lq: Tensor | None = None

    @property
    def guide(self) -> Tensor:
        """The frame that motion is estimated on."""
        return next(frame for frame in (self.hq, self.lq, self.restored) if frame is not None)

    @property
    def guide_name(self) -> str:
        if self.hq is not None:
            return "reference"
        return "input" if self.lq is not None else "restored clip itself"


class Measure(ABC):
    """One or more figures computed together."""

    specs: tuple[MetricSpec, ...]

    @abstractmethod
    def update(self, frame_set: FrameSet) -> dict[str, float]:
        """The next frame's values by spec name; a spec without a value here is left out."""

    def conditions(self) -> dict[str, str]:
        """What else must be printed with the figures: networks, constants, resolutions."""
        return {}


@dataclass
class Measured:
    """One clip's figures: by spec name, a value per frame (None if missing) and the mean."""

    frames: dict[str, list[float | None]] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    num_frames: int = 0

    @property
    def totals(self) -> dict[str, float]:
        """Mean over the frames that have a value; a spec that never had one is left out."""
        found = {}
        for name, values in self.frames.items():
            known = [value for value in values if value is not None]
            if known:
                found[name] = math.fsum(known) / len(known)
        return found


def measure_steps(
    frame_sets: Iterable[FrameSet], measures: Iterable[Measure], every: int = 1
) -> Iterator[Measured]:
    """Measure a clip, yielding the same growing :class:`Measured` after each frame.

    Slow measures see only every ``every``-th frame, starting with the first. The measures process
    a frame concurrently, each in its own thread.
    """
    measures = list(measures)
    measured = Measured({spec.name: [] for measure in measures for spec in measure.specs})
    with ThreadPoolExecutor(max(1, len(measures))) as pool:
        for index, frame_set in enumerate(frame_sets):
            check_frame_set(frame_set)
            seen = {
                measure: pool.submit(measure.update, frame_set)
                for measure in measures
                if index % every == 0 or not measure.specs[0].slow
            }
            for measure in measures:
                values = seen[measure].result() if measure in seen else {}
                for spec in measure.specs:
                    measured.frames[spec.name].append(values.get(spec.name))
            measured.num_frames = index + 1
            yield measured
    for measure in measures:
        measured.conditions.update(measure.conditions())


def measure_clip(
    restored_frames: Iterable[Tensor],
    measures: Iterable[Measure],
    hq_frames: Iterable[Tensor] | None = None,
    lq_frames: Iterable[Tensor] | None = None,
    every: int = 1,
) -> Measured:
    """Measure clips held as tensors (T,3,H,W), lists, or any iterators of frames (3,H,W)."""
    measured = Measured()
    for measured in measure_steps(  # noqa: B007 (the last one is the result)
        in_step(restored_frames, hq_frames, lq_frames), measures, every
    ):
        pass
    return measured


def in_step(
    restored_frames: Iterable[Tensor],
    hq_frames: Iterable[Tensor] | None,
    lq_frames: Iterable[Tensor] | None,
) -> Iterator[FrameSet]:
    """Frames of up to three clips side by side; InputError where one ends before another."""
    clips = {
        name: iter(frames)
        for name, frames in (("restored", restored_frames), ("hq", hq_frames), ("lq", lq_frames))
        if frames is not None
    }
    titles = {"restored": "the restored clip", "hq": "the reference", "lq": "the input"}
    for index in count():
        found = {name: next(frames, None) for name, frames in clips.items()}
        ended = [name for name, frame in found.items() if frame is None]
        if len(ended) == len(clips):
            return
        if ended:
            raise InputError(
                "{what} ends after {value} frames and another clip goes on",
                remedy="give clips of the same length",
                what=titles[ended[0]],
                value=index,
            )
        yield FrameSet(found["restored"], found.get("hq"), found.get("lq"))  # type: ignore[arg-type]


def check_frame_set(frame_set: FrameSet) -> None:
    """InputError where the frames of a frame_set are not of one size, (3,H,W)."""
    sizes = {tuple(frame.shape) for frame in frame_set if frame is not None}
    if len(sizes) > 1 or any(len(size) != 3 or size[0] != 3 for size in sizes):
        found = " and ".join(f"{'x'.join(map(str, reversed(size)))}" for size in sorted(sizes))
        raise InputError(
            "frames are {value}", remedy="give frames (3,H,W) of one size", value=found
        )
