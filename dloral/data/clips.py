"""A micro-batch of clips, and what everything that trains draws them from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """One micro-batch: the step (from 0), its number in the step, and its own randomness, which
    comes from (seed, step, micro-batch) alone."""

    step: int
    micro: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Clips:
    """B clips of T frames at output size.

    ``hq_frames``, ``lq_frames``: (B,T,3,H,W) in [0, 1]. ``flow``: (B,T-1,2,H,W), from the current
    frame to the previous one (dx, dy) in pixels; NaN where it is not known, None where it is known
    of no clip. ``small_frames``: (B,T,3,h,w), the low-quality frames before they were enlarged,
    None where they were not kept.
    """

    hq_frames: Tensor
    lq_frames: Tensor
    flow: Tensor | None
    small_frames: Tensor | None = None

    def to(self, device: torch.device | str) -> Self:
        """The same clips on ``device``."""
        flow, small = (
            None if part is None else part.to(device) for part in (self.flow, self.small_frames)
        )
        return type(self)(self.hq_frames.to(device), self.lq_frames.to(device), flow, small)


def turned(
    pictures: Sequence[Tensor], flow: Tensor, rng: np.random.Generator
) -> tuple[list[Tensor], Tensor]:
    """Pictures (...,H,W) and flow (...,2,h,w), all mirrored or transposed in the same one of eight
    ways; the flow's directions follow."""
    for axis, sign in ((-1, (-1.0, 1.0)), (-2, (1.0, -1.0))):
        if rng.integers(2):
            pictures = [picture.flip(axis) for picture in pictures]
            flow = flow.flip(axis) * flow.new_tensor(sign).view(2, 1, 1)
    if rng.integers(2):
        pictures = [picture.transpose(-1, -2) for picture in pictures]
        flow = flow.transpose(-1, -2).flip(-3)
    return list(pictures), flow


class ClipSource(Protocol):
    """Where clips come from: the paper's S_cons and S_enh, or any other phase's."""

    def draw(self, draw: Draw) -> Clips:
        """The clips of one micro-batch, the same whenever they are asked for."""
