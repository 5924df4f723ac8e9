"""Colour fix: the restored frame gets the colours of its low-quality input.

restored_frames and lq_frames are float (T,3,H,W) in [0, 1], of one size; results are clamped.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

WAVELET_LEVELS = 5
REDUCED_LEVELS = 2
"""How many of the levels halve the picture."""

SMALL = 64
"""Pixels a side, below which pictures are not reduced: twice what the coarsest levels reach."""


def fix_colour(restored_frames: Tensor, lq_frames: Tensor, method: str) -> Tensor:
    """Apply one of :data:`COLOUR_FIXES`; raises ``ValueError`` for another name."""
    if method not in COLOUR_FIXES:
        raise ValueError(f"color_fix {method!r} is unknown; choose from {', '.join(COLOUR_FIXES)}")
    fixed = COLOUR_FIXES[method](restored_frames, lq_frames)
    return fixed.clamp(0, 1) if fixed is restored_frames else fixed.clamp_(0, 1)


def match_mean_and_std(restored_frames: Tensor, lq_frames: Tensor) -> Tensor:
    """Adaptive instance normalisation (Huang & Belongie, 2017) of each frame's three channels."""
    mean, std = _mean_and_std(restored_frames)
    wanted_mean, wanted_std = _mean_and_std(lq_frames)
    return (restored_frames - mean) * (wanted_std / std) + wanted_mean


def _mean_and_std(frames: Tensor) -> tuple[Tensor, Tensor]:
    # correction=0: a one-pixel frame has no unbiased variance, and in the ratio it cancels.
    variance, mean = torch.var_mean(frames, dim=(-2, -1), correction=0, keepdim=True)
    return mean, (variance + 1e-5).sqrt()


def match_low_frequencies(restored_frames: Tensor, lq_frames: Tensor) -> Tensor:
    """Keep the restored frame's detail; take everything coarser from the input.

    An undecimated wavelet of five levels; only its low pass needs to be exchanged.
    """
    return low_pass(lq_frames - restored_frames).add_(restored_frames)


def low_pass(frames: Tensor) -> Tensor:
    """What five levels of the kernel [1, 2, 1] / 4 at 1, 2, 4, 8 and 16 pixels leave of frames
    (T,3,H,W), the border repeated at each level.

    The result is so smooth that every fourth pixel is enough: two levels are computed only there,
    the others on that reduced picture, which is then enlarged again. It differs from all levels at
    full size by 1e-4 in the mean and at most 2e-3 at a border, for differences of about 0.1
    (tested), except in small pictures, where borders are everywhere: those get all levels at full
    size.
    """
    height, width = frames.shape[-2:]
    if min(height, width) < SMALL or frames.requires_grad:
        return plain_low_pass(frames)
    reduced = frames
    for _ in range(2):  # along the height, then along the width
        reduced = _halve_rows(_halve_rows(reduced))
        for level in range(WAVELET_LEVELS - REDUCED_LEVELS):
            reduced = _smooth_rows(reduced, 2**level)
        reduced = reduced.transpose(-1, -2).contiguous()
    size = [2**REDUCED_LEVELS * (side - 1) + 1 for side in reduced.shape[-2:]]
    enlarged = F.interpolate(reduced, size, mode="bilinear", align_corners=True)
    return enlarged[..., :height, :width]


def plain_low_pass(frames: Tensor) -> Tensor:
    """:func:`low_pass` as it is defined: every level at full size."""
    channels = frames.shape[-3]
    taps = torch.tensor([0.25, 0.5, 0.25], device=frames.device, dtype=frames.dtype)
    kernel = torch.outer(taps, taps).expand(channels, 1, 3, 3)
    for level in range(WAVELET_LEVELS):
        padded = F.pad(frames, (2**level,) * 4, mode="replicate")
        frames = F.conv2d(padded, kernel, dilation=2**level, groups=channels)
    return frames


def _halve_rows(frames: Tensor) -> Tensor:
    """One level at 1 row, for rows 0, 2, 4 ... of H; where H is even, the last row too."""
    height = frames.shape[-2]
    count = height // 2 + 1
    halved = frames.new_empty(*frames.shape[:-2], count, frames.shape[-1])
    before = frames[..., 1 : 2 * count - 4 : 2, :]
    after = frames[..., 3 : 2 * count - 2 : 2, :]
    inner = halved[..., 1 : count - 1, :]
    torch.add(before, after, out=inner)
    inner.mul_(0.25).add_(frames[..., 2 : 2 * count - 2 : 2, :], alpha=0.5)
    for edge, next_to_it in ((0, 1), (-1, -2)):
        halved[..., edge, :] = 0.75 * frames[..., edge, :] + 0.25 * frames[..., next_to_it, :]
    return halved


def _smooth_rows(frames: Tensor, radius: int) -> Tensor:
    """One level at ``radius`` rows."""
    height = frames.shape[-2]
    padded = F.pad(frames, (0, 0, radius, radius), mode="replicate")
    smoothed = padded[..., :height, :] + padded[..., 2 * radius :, :]
    return smoothed.mul_(0.25).add_(frames, alpha=0.5)


COLOUR_FIXES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "adain": match_mean_and_std,
    "wavelet": match_low_frequencies,
    "none": lambda restored_frames, lq_frames: restored_frames,
}
"""By name: restored frames and low-quality frames -> fixed frames, which are clamped afterwards."""
