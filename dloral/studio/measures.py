"""Per-frame curves for the page while a job runs: sharpness, flicker, difference from the input.
Meant for inspecting one clip; to compare methods, use ``dloral.evaluation``.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from dloral.frames.clips import as_bytes
from dloral.studio.pictures import within

FLOW_SIDE = 480
"""Pixels; motion between two frames is estimated on frames no larger."""

MOST_ROWS = 1600
"""Of a temporal profile; in longer clips only every second, fourth, ... frame gives a row."""

_LUMA = torch.tensor([0.299, 0.587, 0.114])
"""ITU-R BT.601."""


@dataclass
class Measures:
    """``sharpness``: mean gradient of the luma; ``flicker``: mean difference from the previous
    frame, warped by the motion of the bicubic frames (0 for the first frame); ``difference``: mean
    difference between restored and bicubic. All in grey levels of 255, one value per frame.
    """

    sharpness_bicubic: list[float] = field(default_factory=list)
    sharpness_restored: list[float] = field(default_factory=list)
    flicker_bicubic: list[float] = field(default_factory=list)
    flicker_restored: list[float] = field(default_factory=list)
    difference: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._rows: list[np.ndarray] = []
        self._every = 1

    def add(self, bicubic: Tensor, restored: Tensor) -> None:
        """Add the next frame: bicubic and restored, each (3,H,W) in [0, 1]."""
        pair = bicubic.float().cpu(), restored.float().cpu()
        self.sharpness_bicubic.append(_sharpness(pair[0]))
        self.sharpness_restored.append(_sharpness(pair[1]))
        self.difference.append(255 * (pair[1] - pair[0]).abs().mean().item())
        small = _grey(within(pair[0], FLOW_SIDE)), _grey(within(pair[1], FLOW_SIDE))
        flickers = self._flickers(small) if self._before else (0.0, 0.0)
        self.flicker_bicubic.append(flickers[0])
        self.flicker_restored.append(flickers[1])
        self._before = small
        self._add_row(*pair)

    def profile(self) -> Tensor:
        """One row of every frame, stacked in time: (3, 2T, W), bicubic then restored. Flicker looks
        ragged there; steady content looks smooth."""
        rows = np.stack(self._rows)  # (T, 2, W, 3)
        both = np.concatenate([rows[:, 0], rows[:, 1]])
        return torch.from_numpy(both).permute(2, 0, 1).float() / 255

    def as_lists(self) -> dict[str, list[float]]:
        names = [name for name in self.__dataclass_fields__ if not name.startswith("_")]
        return {name: [round(value, 4) for value in getattr(self, name)] for name in names}

    def _flickers(self, small: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
        assert self._before is not None
        height, width = small[0].shape
        if min(height, width) < 12:  # too small to estimate motion
            flow = np.zeros((height, width, 2), np.float32)
        else:
            still = np.zeros((height, width, 2), np.float32)
            flow = np.asarray(self._flow.calc(small[0], self._before[0], still))
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        x = (columns + flow[..., 0]).astype(np.float32)
        y = (rows + flow[..., 1]).astype(np.float32)
        errors = []
        for now, before in zip(small, self._before, strict=True):
            moved = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            errors.append(float(cv2.absdiff(now, moved).mean()))
        return errors[0], errors[1]

    def _add_row(self, bicubic: Tensor, restored: Tensor) -> None:
        if (len(self.difference) - 1) % self._every:
            return
        middle = bicubic.shape[1] // 2
        pair = [as_bytes(frame[:, middle : middle + 1])[0] for frame in (bicubic, restored)]
        self._rows.append(np.stack(pair))
        if len(self._rows) > MOST_ROWS:
            self._rows = self._rows[::2]
            self._every *= 2


def _grey(frame: Tensor) -> np.ndarray:
    luma = torch.einsum("c,chw->hw", _LUMA, frame)
    return luma.clamp(0, 1).mul(255).round().byte().numpy()


def _sharpness(frame: Tensor) -> float:
    luma = torch.einsum("c,chw->hw", _LUMA, frame)
    steps = [luma.diff(dim=axis).abs() for axis in (0, 1) if luma.shape[axis] > 1]
    return 255 * sum(step.mean().item() for step in steps)
