"""Scene changes: where a clip cuts from one picture to another."""

import torch.nn.functional as F
from torch import Tensor

THUMBNAIL = (18, 32)  # rows, columns
CUT_DIFFERENCE = 20 / 255
"""Mean change of a thumbnail from one frame to the next that is taken for a cut. Motion, a pan or
a flash of part of the picture stay below; most cuts are at three times that."""


class CutDetector:
    """Takes a clip frame by frame and reports where a scene begins."""

    def __init__(self) -> None:
        self._before: Tensor | None = None

    def begins(self, frame: Tensor) -> bool:
        """Whether ``frame`` (3,H,W) in [0, 1] is the first of a scene; the first frame shown is."""
        thumbnail = F.interpolate(frame[None], THUMBNAIL, mode="area")
        before, self._before = self._before, thumbnail
        return before is None or (thumbnail - before).abs().mean().item() > CUT_DIFFERENCE
