"""A micro-batch of clips, and the interface that all training draws them from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """One micro-batch: the step (from 0), its number in the step, and its own randomness, which
    depends on (seed, step, micro-batch) alone."""

    step: int
    micro: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Clips:
    """B clips of T frames at output size.

    ``hq_frames``, ``lq_frames``: (B,T,3,H,W) in [0, 1]. ``flow``: (B,T-1,2,H,W), from the current
    frame to the previous one (dx, dy) in pixels; NaN where unknown, None if known for no clip.
    ``small_frames``: (B,T,3,h,w), the low-quality frames before they were enlarged, None if not
    kept. ``lossless``: (B,) bool, the clips whose small frames hold all of the truth, which then
    replaces a teacher's answer; None if there are none.
    """

    hq_frames: Tensor
    lq_frames: Tensor
    flow: Tensor | None
    small_frames: Tensor | None = None
    lossless: Tensor | None = None

    def to(self, device: torch.device | str) -> Self:
        """The same clips on ``device``."""
        return self._each(lambda part: part.to(device))

    def rows(self, rows: slice) -> Self:
        """Some of the clips."""
        return self._each(lambda part: part[rows])

    def frames_from(self, first: int) -> Self:
        """The clips from frame ``first`` on, with the flow between the remaining frames."""
        flow = self.flow if self.flow is None else self.flow[:, first:]
        small = None if self.small_frames is None else self.small_frames[:, first:]
        return replace(
            self,
            hq_frames=self.hq_frames[:, first:],
            lq_frames=self.lq_frames[:, first:],
            flow=flow,
            small_frames=small,
        )

    def _each(self, made: Callable[[Tensor], Tensor]) -> Self:
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{n: made(part) for n, part in parts.items() if part is not None})


def turned(
    pictures: Sequence[Tensor], flow: Tensor, rng: np.random.Generator
) -> tuple[list[Tensor], Tensor]:
    """Pictures (...,H,W) and flow (...,2,h,w), all mirrored or transposed in the same one of eight
    ways; the flow vectors turn with them."""
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
        """The clips of one micro-batch, the same each time they are requested."""
