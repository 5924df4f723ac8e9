"""Crisper edges without halos, and smoother flat areas: the finish of a restored frame, and what
D-LoRA is taught (our decision; judged blind, docs/decisions.md)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dloral.frames.sliding import BAND, sliding, sliding_mean

FLAT, STRUCTURED = 3 / 255, 14 / 255
"""Up to which span of grey (of 3 x 3 means, within 9 x 9 of them) ground is flat, and from which it
is not."""

REACH = 7
"""Pixels around one that count for it."""

FULL_CRISPNESS_SCALE = 4.0
"""From this enlargement on, frames are made as crisp as they can be."""


def crispness_at(enlarged: float) -> float:
    """How much crispness suits frames enlarged by this factor: all from 4 on, none if not enlarged,
    since their detail is then as fine as the pixels that it works on (our decision)."""
    return min(1.0, max(0.0, (enlarged - 1) / (FULL_CRISPNESS_SCALE - 1)))


def crisp(
    frames: Tensor, amount: float = 1.0, smoothing: float = 1.0, share: float = 1.0
) -> Tensor:
    """Frames (B,3,H,W), clamped to [0, 1], with crisper edges and smoother flat ground.

    Unsharp masking (two 5 x 5 means, a standard deviation of 2 pixels) makes an edge steeper and
    adds halos beside it; here no value leaves the range of the 5 x 5 pixels around it, so there are
    none. In flat areas it would amplify a faint mesh, so there the mean takes its place, by a
    share of ``smoothing``; with 0 all of the frame is made steeper.

    ``amount``: of unsharp masking, from 0 on. ``share``: of all of this change, 0 to 1.
    """
    frames = frames.clamp(0, 1)
    padded = F.pad(frames, (REACH,) * 4, mode="replicate")
    height, width = frames.shape[-2:]
    rows = max(8 * REACH, BAND // width) if frames.device.type == "cpu" else height
    bands = [
        _crisp(padded[..., top : min(top + rows, height) + 2 * REACH, :], amount, smoothing, share)
        for top in range(0, height, rows)
    ]
    return bands[0] if len(bands) == 1 else torch.cat(bands, dim=-2)


def _crisp(padded: Tensor, amount: float, smoothing: float, share: float) -> Tensor:
    """``padded`` frames (B,3,h+14,w+14) -> (B,3,h,w)."""
    frames = _inner(padded, REACH)
    once = sliding_mean(_inner(padded, REACH - 4), 5)
    steeper = torch.add((1 + amount) * frames, sliding_mean(once, 5), alpha=-amount)
    around = _inner(padded, REACH - 2)
    steeper = steeper.maximum(sliding(around, 5, torch.minimum))
    steeper = steeper.minimum(sliding(around, 5, torch.maximum))
    made = _smoothed(padded, once, steeper, smoothing) if smoothing else steeper
    return made if share == 1 else torch.lerp(frames, made, share)


def _smoothed(padded: Tensor, once: Tensor, steeper: Tensor, smoothing: float) -> Tensor:
    """``steeper``, but smooth where the frame is flat, by a share of ``smoothing``."""
    grey = sliding_mean(padded.mean(dim=1, keepdim=True), 3)
    span = sliding(grey, 9, torch.maximum) - sliding(grey, 9, torch.minimum)
    structure = ((span - FLAT) / (STRUCTURED - FLAT)).clamp(0, 1)
    structure = sliding_mean(structure.square() * (3 - 2 * structure), 5)
    smooth = sliding_mean(_inner(once, 1), 3)
    share = structure if smoothing == 1 else 1 - smoothing * (1 - structure)
    return torch.lerp(smooth, steeper, share)


def _inner(frames: Tensor, border: int) -> Tensor:
    height, width = frames.shape[-2:]
    return frames[..., border : height - border, border : width - border]
