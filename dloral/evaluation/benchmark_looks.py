"""What people look at in a restored clip: a crop of its last frame, and a row over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dloral.evaluation.measures import FrameSet
from dloral.frames.clips import as_bytes

SIDE = 224
"""Pixels a side of a crop, at most."""

STRIDE = 16
MOST_FRAMES = 224
"""A row over time shows so many frames from the start."""

TALL = 96
JPEG_QUALITY = 92
TRUTH = "truth"


class Look:
    """Collects both while a clip is measured; the same place for every method.

    The place is the square of the first guide frame (truth, else input) with the most detail.
    """

    def __init__(self) -> None:
        self._place: tuple[slice, slice] | None = None
        self._rows: dict[str, list[NDArray[Any]]] = {}
        self._last: dict[str, Tensor] = {}

    def update(self, frame_set: FrameSet) -> None:
        if self._place is None:
            self._place = busiest_square(frame_set.guide)
        frames = {"restored": frame_set.restored}
        if frame_set.hq is not None:
            frames[TRUTH] = frame_set.hq
        self._last = {name: frame[:, *self._place] for name, frame in frames.items()}
        for name, crop in self._last.items():
            rows = self._rows.setdefault(name, [])
            if len(rows) < MOST_FRAMES:
                middle = crop.shape[1] // 2
                rows.append(as_bytes(crop[:, middle : middle + 1]))

    def save(self, place: Path) -> None:
        """Beside ``place`` (METHOD.json): ``METHOD.jpg``, ``METHOD.png``, and the truth's."""
        for name, crop in self._last.items():
            target = place if name == "restored" else place.with_name(f"{TRUTH}.json")
            picture = Image.fromarray(as_bytes(crop))
            picture.save(target.with_suffix(".jpg"), quality=JPEG_QUALITY, subsampling=0)
            rows = np.concatenate(self._rows[name])
            rows = np.repeat(
                rows, max(1, TALL // len(rows)), axis=0
            )  # so that there is something to see
            Image.fromarray(rows).save(target.with_suffix(".png"))


def busiest_square(frame: Tensor) -> tuple[slice, slice]:
    """(rows, columns) of the square of (3,H,W) whose neighbours differ most; sides at most 224."""
    height, width = frame.shape[-2:]
    sides = [min(SIDE, height), min(SIDE, width)]
    if (height, width) == tuple(sides):
        return slice(0, height), slice(0, width)
    energy = torch.zeros(height, width)
    energy[1:] += frame.diff(dim=1).abs().mean(dim=0)
    energy[:, 1:] += frame.diff(dim=2).abs().mean(dim=0)
    means = F.avg_pool2d(energy[None, None], sides, STRIDE)[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[1])
    top, left = STRIDE * row, STRIDE * column
    return slice(top, top + sides[0]), slice(left, left + sides[1])
