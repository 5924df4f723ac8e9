"""Sums, minima and maxima over the square around each pixel."""

from collections.abc import Callable

import torch
from torch import Tensor

BAND = 2**17
"""Pixels that a processor works on at a time, about: they stay in its cache, and what is computed
on the way takes no memory that grows with the frame."""


def sliding(
    frames: Tensor, side: int, joined: Callable[[Tensor, Tensor], Tensor], step: int = 1
) -> Tensor:
    """``joined`` over all pixels in each square of ``side``, a power of two plus one:
    (...,H,W) -> (...,H-side+1,W-side+1). ``step``: pixels from each one that counts to the next.

    By doubling: for 9 in a row, 2, 4, 8, then the ninth. torch's pooling takes one at a time.
    """
    for dim in (-1, -2):
        found = in_a_row(frames, side - 1, dim, joined, step)
        frames = joined(*_shifted(found, frames, (side - 1) * step, dim))
    return frames


def sliding_mean(frames: Tensor, side: int) -> Tensor:
    """Of each square, as :func:`sliding`."""
    return sliding(frames, side, torch.add) / side**2


def in_a_row(
    frames: Tensor,
    count: int,
    dim: int,
    joined: Callable[[Tensor, Tensor], Tensor],
    step: int = 1,
) -> Tensor:
    """``joined`` over each ``count`` pixels in a row, a power of two, along ``dim``."""
    reached = 1
    while reached < count:
        frames = joined(*_shifted(frames, frames, reached * step, dim))
        reached *= 2
    return frames


def _shifted(first: Tensor, second: Tensor, by: int, dim: int) -> tuple[Tensor, Tensor]:
    """Both, cropped to where they overlap once ``second`` is moved back by ``by`` pixels."""
    length = second.shape[dim] - by
    return first.narrow(dim, 0, length), second.narrow(dim, by, length)
