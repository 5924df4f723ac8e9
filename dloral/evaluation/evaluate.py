"""Measure clips, pair by pair, carrying on when one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dloral.errors import PYTHON, DLoRALError, Face, InputError
from dloral.evaluation.catalogue import MetricSuite, Settings, chosen_metrics
from dloral.evaluation.measures import FrameSet, Measured, MetricSpec, measure_steps
from dloral.evaluation.pairs import OpenPair, Pair, find_pairs, frame_sets_of, open_pair
from dloral.frames.clips import as_bytes

PROFILE_FRAMES = 600
"""A temporal profile shows so many frames from the start; it must not grow with the clip."""


class Profile:
    """One row of pixels of each clip over time: the usual way to show flicker.

    The row is the middle one. ``pictures()``: keyed by what it shows, uint8 (frames, W, 3).
    """

    def __init__(self) -> None:
        self._rows: dict[str, NDArray[np.uint8]] = {}
        self._seen = 0

    def update(self, frame_set: FrameSet) -> None:
        if self._seen == PROFILE_FRAMES:
            return
        for name, frame in (
            ("input", frame_set.lq),
            ("restored", frame_set.restored),
            ("reference", frame_set.hq),
        ):
            if frame is None:
                continue
            if name not in self._rows:
                # Allocated whole: small rows kept one by one between short-lived frames would
                # fragment the heap and pin a gigabyte of freed memory.
                self._rows[name] = np.empty((PROFILE_FRAMES, frame.shape[2], 3), np.uint8)
            row = frame[:, frame.shape[1] // 2].clamp(0, 1).mul(255).round()
            self._rows[name][self._seen] = row.T.byte().cpu().numpy()
        self._seen += 1

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        return {name: rows[: self._seen] for name, rows in self._rows.items()}


@dataclass
class ClipResult:
    """A pair's figures, or ``error`` if there are none."""

    pair: Pair
    measured: Measured = field(default_factory=Measured)
    error: str = ""
    size: tuple[int, int] | None = None  # height, width
    profile: Profile = field(default_factory=Profile)
    frames: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    """The first frame of each clip, uint8 (H,W,3): what a person looks at."""


@dataclass
class Evaluation:
    """Everything that was measured, and everything that could not be."""

    settings: Settings
    specs: tuple[MetricSpec, ...]
    results: list[ClipResult] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.unavailable and not any(result.error for result in self.results)

    @property
    def totals(self) -> dict[str, float]:
        """Mean over the clips that have a figure, all weighted equally."""
        found = {}
        for spec in self.specs:
            totals = [r.measured.totals for r in self.results if not r.error]
            values = [one[spec.name] for one in totals if spec.name in one]
            if values:
                found[spec.name] = float(np.mean(values))
        return found


@dataclass(frozen=True)
class Step:
    """An evaluation's progress: ``frame`` of ``num_frames`` in ``clip`` of ``num_clips``."""

    name: str
    clip: int
    num_clips: int
    frame: int
    num_frames: int | None


def evaluate(
    restored: str | Path,
    reference: str | Path | None = None,
    lq: str | Path | None = None,
    metrics: tuple[str, ...] = ("fast",),
    on_step: Callable[[Step], None] | None = None,
    face: Face = PYTHON,
    **settings: object,
) -> Evaluation:
    """Measure a clip, or every clip of a folder; ``settings`` as :class:`Settings` takes them.

    What cannot be measured is in the result, as ``face`` words it: ``error`` of a pair,
    ``unavailable`` measures.
    Raises :class:`OptionError` for a wrong call and :class:`InputError` where there is no clip.
    """
    names = chosen_metrics(metrics, reference is not None)
    pairs = find_pairs(restored, reference, lq)
    ready = MetricSuite(Settings(metrics=names, **settings), face)  # type: ignore[arg-type]
    done = Evaluation(ready.settings, ready.specs, unavailable=ready.unavailable)
    for number, pair in enumerate(pairs):
        result = ClipResult(pair)
        done.results.append(result)
        try:
            for frame, num_frames in _measure_pair(result, ready):
                if on_step is not None:
                    on_step(Step(pair.name, number, len(pairs), frame, num_frames))
        except DLoRALError as error:
            result.error = error.render(face)
    return done


def _measure_pair(result: ClipResult, ready: MetricSuite) -> Iterator[tuple[int, int | None]]:
    """Yield (frames done, total frames) after each; fills ``result``."""
    opened = open_pair(result.pair)
    result.size = (opened.restored.height, opened.restored.width)
    with frame_sets_of(opened) as frame_sets:
        watched = _watched(frame_sets, result)
        for measured in measure_steps(watched, ready.measures(), ready.settings.every):
            result.measured = measured
            yield measured.num_frames, opened.num_frames
    if not result.measured.num_frames:
        raise InputError(
            "{path} has no frames",
            remedy="give another clip",
            path=result.pair.restored,
        )
    if any(spec.name == "vmaf" for spec in ready.specs):
        result.measured.frames["vmaf"] = _vmaf_of(opened, result.measured.num_frames)


def _watched(frame_sets: Iterator[FrameSet], result: ClipResult) -> Iterator[FrameSet]:
    """Pass the frame_sets through, keeping the first frames and the profile."""
    for frame_set in frame_sets:
        if not result.frames:
            result.frames = {
                name: as_bytes(frame)
                for name, frame in zip(("restored", "reference", "input"), frame_set, strict=True)
                if frame is not None
            }
        result.profile.update(frame_set)
        yield frame_set


def _vmaf_of(opened: OpenPair, num_frames: int) -> list[float | None]:
    from dloral.evaluation.vmaf import vmaf

    assert opened.reference is not None
    found = vmaf(opened.restored, opened.reference)
    if len(found) != num_frames:
        raise InputError(
            "VMAF counts {value} frames in {path}, but {count} were read",
            remedy="convert the clip, or leave vmaf out",
            path=opened.restored.path,
            value=len(found),
            count=num_frames,
        )
    return list(found)
