"""A study's held-out clips, measured the same way for every run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dloral.errors import PYTHON, Face, InputError, Setting
from dloral.evaluation.catalogue import TEMPORAL, MetricSuite, Settings, chosen_metrics
from dloral.evaluation.datasets import pack_sources
from dloral.evaluation.restore import Restored, Scales, Size, model_restorer, restore_and_measure
from dloral.frame_generator import FrameGenerator
from dloral.frames.clips import as_bytes

MOST_CLIPS = 8
SLOW_FRAMES = 3
"""Frames of a clip, about, that slow measures see: the first, one of the middle, a late one."""

Figures = dict[str, dict[str, float]]
"""Clip -> measure -> its mean over the clip's frames."""


class HeldOutClips:
    """The first clips of a pack. ``metrics``: names as :func:`chosen_metrics` takes them.

    Raises :class:`InputError` for a pack without clips, and for one of single frames where a
    measure compares each frame with the one before.
    """

    def __init__(self, folder: Path, metrics: Iterable[str], face: Face = PYTHON) -> None:
        from dloral.data.packs import Pack

        self.pack, self.name = Pack(folder), folder.name
        self.count = min(len(self.pack.hq), MOST_CLIPS)
        if not self.pack.hq.size:
            raise InputError(
                "{path} is an empty pack", remedy="make it of 1 clip or more", path=folder
            )
        self.num_frames = int(self.pack.hq.shape[1])
        self.names = [str(index) for index in range(self.count)]
        sources = pack_sources(folder, [str(index) for index in range(len(self.pack.hq))])
        self.sources = dict(zip(self.names, sources, strict=False))
        self.suite = MetricSuite(
            Settings(
                metrics=chosen_metrics(metrics, has_reference=True),
                every=max(1, self.num_frames // SLOW_FRAMES),
            ),
            face,
        )
        temporal = [name for name in self.metrics if name in TEMPORAL]
        if self.num_frames < 2 and temporal:
            raise InputError(
                "{path} has clips of 1 frame, and {names} compares each frame with the one before",
                remedy="give a pack of 2 frames a clip or more, or other {option}",
                path=folder,
                names=" and ".join(temporal),
                option=Setting("metrics"),
            )

    @property
    def metrics(self) -> list[str]:
        """The available ones."""
        return [spec.name for spec in self.suite.specs]

    @property
    def digest(self) -> str:
        """SHA-256 of the clips to restore and of their ground truth."""
        found = hashlib.sha256(self.pack.lq.tobytes())
        found.update(self.pack.hq.tobytes())
        return found.hexdigest()

    def measured(
        self,
        pipe: FrameGenerator,
        scales: Scales,
        shown: Path | None = None,
        most: int | None = None,
    ) -> Figures:
        """A model's figures on the clips (the first ``most``); ``shown`` gets a picture of their
        last frames, one row per clip: input, restored, truth."""
        figures: Figures = {}
        rows = []
        for index, name in enumerate(self.names[:most]):
            found = self._restored(index, model_restorer(pipe, scales))
            figures[name] = found.measured.totals
            last = found.last
            assert last.lq is not None
            assert last.hq is not None
            rows.append(torch.cat([last.lq, last.restored, last.hq], dim=2))
        if shown is not None:
            Image.fromarray(as_bytes(torch.cat(rows, dim=1))).save(shown)
        return figures

    def truth(self) -> Figures:
        """The same for the ground truth itself: a perfect restoration's figures."""
        figures = {}
        for index, name in enumerate(self.names):
            hq_frames, _ = self.pack.clip(index)

            def itself(small: Iterable[Tensor], size: Size, found: Tensor = hq_frames) -> Frames:
                for _, frame in zip(small, found, strict=True):
                    yield frame

            figures[name] = self._restored(index, itself).measured.totals
        return figures

    def _restored(
        self, index: int, restorer: Callable[[Iterable[Tensor], Size], Frames]
    ) -> Restored:
        hq_frames, _ = self.pack.clip(index)
        small_frames = torch.from_numpy(np.array(self.pack.lq[index])).float() / 255
        height, width = hq_frames.shape[-2:]
        return restore_and_measure(restorer, small_frames, (height, width), self.suite, hq_frames)


Frames = Iterator[Tensor]


def means(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Means over clips for every measure; NaN where a value is not finite (null in our JSON)."""
    names = dict.fromkeys(name for one in figures.values() for name in one)
    return {
        name: float(np.mean([_number(one[name]) for one in figures.values() if name in one]))
        for name in names
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
