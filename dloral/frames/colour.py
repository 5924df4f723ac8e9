"""Colour fix: the restored frame gets the colours of its low-quality input.

restored_frames and lq_frames are float (T,3,H,W) in [0, 1], of one size; results are clamped.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

COLOUR_FIXES = ("adain", "wavelet", "none")
WAVELET_LEVELS = 5


def fix_colour(restored_frames: Tensor, lq_frames: Tensor, method: str) -> Tensor:
    """Apply one of :data:`COLOUR_FIXES`; raises ``ValueError`` for another name."""
    if method == "adain":
        fixed = match_mean_and_std(restored_frames, lq_frames)
    elif method == "wavelet":
        fixed = match_low_frequencies(restored_frames, lq_frames)
    elif method == "none":
        fixed = restored_frames
    else:
        raise ValueError(f"color_fix {method!r} is unknown; choose from {', '.join(COLOUR_FIXES)}")
    return fixed.clamp(0, 1)


def match_mean_and_std(restored_frames: Tensor, lq_frames: Tensor) -> Tensor:
    """Adaptive instance normalisation (Huang & Belongie, 2017) of each frame's three channels."""
    mean, std = _mean_and_std(restored_frames)
    wanted_mean, wanted_std = _mean_and_std(lq_frames)
    return (restored_frames - mean) * (wanted_std / std) + wanted_mean


def _mean_and_std(frames: Tensor) -> tuple[Tensor, Tensor]:
    # correction=0, for a frame of one pixel has no unbiased variance; in the ratio both are one.
    variance, mean = torch.var_mean(frames, dim=(-2, -1), correction=0, keepdim=True)
    return mean, (variance + 1e-5).sqrt()


def match_low_frequencies(restored_frames: Tensor, lq_frames: Tensor) -> Tensor:
    """Keep the restored frame's detail, take everything coarser from the input.

    An undecimated wavelet of five levels; its low pass is all that has to be exchanged.
    """
    return restored_frames + _low_pass(lq_frames - restored_frames)


def _low_pass(frames: Tensor) -> Tensor:
    channels, height, width = frames.shape[-3:]
    taps = torch.tensor([0.25, 0.5, 0.25], device=frames.device, dtype=frames.dtype)
    kernel = torch.outer(taps, taps).expand(channels, 1, 3, 3)
    for level in range(WAVELET_LEVELS):
        radius = 2**level
        frames = F.conv2d(
            F.pad(frames, (radius,) * 4, mode="replicate"),
            kernel,
            dilation=radius,
            groups=channels,
        )
    assert frames.shape[-2:] == (height, width)
    return frames
