"""Frames without the faint regular pattern that a decoder draws (our decision: docs/decisions.md,
"The decoder's grid is taken out").

A decoder that shuffles cells of p x p pixels apart leaves a mesh of that period, a few tenths of a
grey level strong; once edges are sharpened it shows on flat ground. All cells around have it in
common, where what they picture differs. So the finest detail is averaged over cells, each pixel
with those at the same place in theirs, and this mean is subtracted.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dloral.frames.sliding import BAND, in_a_row, sliding

AROUND = 4
"""Cells on each side of one that count for its pattern."""

FAINT = 3 / 255
"""Mean fine detail at which a cell counts half. It enters with its eighth power: edges and strong
patterns, which belong to the picture, do not count."""

REST = 0.02
"""Share of the cells around that must count for most of a pattern to be subtracted."""

MOST = 2 / 255
"""What is changed in a pixel at the most."""


def without_grid(frames: Tensor, period: int) -> Tensor:
    """Frames (B,3,H,W) in [0, 1] less what repeats faintly every ``period`` pixels, a power of two,
    on a grid that begins at the frame's corner; 0 for frames as they are. Linear ramps stay."""
    if not period:
        return frames
    height, width = frames.shape[-2:]
    rows, columns = -(-height // period), -(-width // period)
    half = period // 2
    beyond = (half, half + columns * period - width, half, half + rows * period - height)
    padded = F.pad(frames, beyond, mode="replicate")
    step = max(2 * AROUND, BAND // (width * period)) if frames.device.type == "cpu" else rows
    bands = [
        _rows_without_grid(padded, top, min(top + step, rows), rows, period)
        for top in range(0, rows, step)
    ]
    found = bands[0] if len(bands) == 1 else torch.cat(bands, dim=-2)
    return found[..., :height, :width].clamp(0, 1)


def _rows_without_grid(padded: Tensor, top: int, bottom: int, rows: int, period: int) -> Tensor:
    """Rows of cells from ``top`` to ``bottom``."""
    first, last = max(top - AROUND, 0), min(bottom + AROUND, rows)
    seen = padded[..., first * period : (last + 1) * period, :]
    half = period // 2
    own = seen[..., half:-half, half:-half]
    fine = own - _coarse(seen, period)
    strength = F.avg_pool2d(fine.abs().mean(dim=1, keepdim=True), period)
    counted = 1 / (1 + (strength / FAINT) ** 8)
    # What is fine there depends on pixels beyond the frame.
    counted[..., [0, -1]] = 0
    counted[..., [row - first for row in (0, rows - 1) if first <= row < last], :] = 0
    _in_cells(fine, period).mul_(counted[..., None, :, None])
    beyond = (AROUND, AROUND, AROUND - (top - first), AROUND - (last - bottom))
    side = 2 * AROUND + 1
    pattern = sliding(F.pad(fine, [period * count for count in beyond]), side, torch.add, period)
    counts = sliding(F.pad(counted, beyond), side, torch.add) + REST * side**2
    _in_cells(pattern, period).div_(counts[..., None, :, None])
    inner = own[..., (top - first) * period : (bottom - first) * period, :]
    return inner - pattern.clamp_(-MOST, MOST)


def _in_cells(pixels: Tensor, period: int) -> Tensor:
    """(B,C,H,W) -> (B,C,H/p,p,W/p,p), the same memory."""
    cells: Tensor = pixels.unflatten(-1, (-1, period)).unflatten(-3, (-1, period))
    return cells


def _coarse(padded: Tensor, period: int) -> Tensor:
    """Without anything of that period: (B,3,H+p,W+p) -> (B,3,H,W). The mean of ``period`` pixels in
    a row, and of two such means, so that it is centred on a pixel and keeps ramps."""
    for dim in (-1, -2):
        sums = in_a_row(padded, period, dim, torch.add)
        padded = in_a_row(sums, 2, dim, torch.add)
    return padded / (2 * period) ** 2
