"""Crisper edges without halos, and smoother flat areas: the finish of a restored frame, and what
D-LoRA is taught (our decision; judged blind, docs/decisions.md)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

FLAT, STRUCTURED = 3 / 255, 14 / 255
"""Up to which span of grey (of 3 x 3 means, within 9 x 9 of them) ground is flat, and from which it
is not."""

REACH = 7
"""Pixels around one that count for it."""

BAND = 2**17
"""Pixels that a processor works on at a time, about: they stay in its cache, and what is computed
on the way takes no memory that grows with the frame."""


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
    once = _mean(_inner(padded, REACH - 4), 5)
    steeper = torch.add((1 + amount) * frames, _mean(once, 5), alpha=-amount)
    around = _inner(padded, REACH - 2)
    steeper = steeper.maximum(_sliding(around, 5, torch.minimum))
    steeper = steeper.minimum(_sliding(around, 5, torch.maximum))
    made = _smoothed(padded, once, steeper, smoothing) if smoothing else steeper
    return made if share == 1 else torch.lerp(frames, made, share)


def _smoothed(padded: Tensor, once: Tensor, steeper: Tensor, smoothing: float) -> Tensor:
    """``steeper``, but smooth where the frame is flat, by a share of ``smoothing``."""
    grey = _mean(padded.mean(dim=1, keepdim=True), 3)
    span = _sliding(grey, 9, torch.maximum) - _sliding(grey, 9, torch.minimum)
    structure = ((span - FLAT) / (STRUCTURED - FLAT)).clamp(0, 1)
    structure = _mean(structure.square() * (3 - 2 * structure), 5)
    smooth = _mean(_inner(once, 1), 3)
    share = structure if smoothing == 1 else 1 - smoothing * (1 - structure)
    return torch.lerp(smooth, steeper, share)


def _inner(frames: Tensor, border: int) -> Tensor:
    height, width = frames.shape[-2:]
    return frames[..., border : height - border, border : width - border]


def _mean(frames: Tensor, side: int) -> Tensor:
    return _sliding(frames, side, torch.add) / side**2


def _sliding(frames: Tensor, side: int, joined: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``joined`` over all pixels in each square of ``side``, a power of two plus one.

    By doubling: for 9 in a row, 2, 4, 8, then the ninth. torch's pooling takes one at a time.
    """
    for dim in (-1, -2):
        found, reached = frames, 1
        while reached < side - 1:
            found, reached = joined(*_shifted(found, found, reached, dim)), 2 * reached
        frames = joined(*_shifted(found, frames, side - 1, dim))
    return frames


def _shifted(first: Tensor, second: Tensor, by: int, dim: int) -> tuple[Tensor, Tensor]:
    """Both, cropped to where they overlap once ``second`` is moved back by ``by`` pixels."""
    length = second.shape[dim] - by
    return first.narrow(dim, 0, length), second.narrow(dim, by, length)
