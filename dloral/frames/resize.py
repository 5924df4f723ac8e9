"""Bicubic enlargement, the flow net's small frames, and padding to what the nets need.

Frames are float (T,3,H,W) in [0, 1] unless said otherwise.
"""

import torch.nn.functional as F
from torch import Tensor

LATENT_STRIDE = 8
"""Pixels a side that one latent cell covers."""


def resize_bicubic(frames: Tensor, height: int, width: int) -> Tensor:
    """Bicubic (a = -0.75, no antialiasing, pixel centres kept), clamped to [0, 1].

    This is both the generator's input and the enlargement every result is compared with.
    """
    if frames.shape[-2:] == (height, width):
        return frames
    resized = F.interpolate(frames, (height, width), mode="bicubic", align_corners=False)
    return resized.clamp(0, 1)


def shrink_for_flow(frames: Tensor) -> Tensor:
    """Frames (T,3,H,W), H and W multiples of 8, at latent resolution (T,3,H/8,W/8), unclamped.

    Bicubic without antialiasing, as the released flow weights were trained (notes, step 2).
    """
    return F.interpolate(
        frames, scale_factor=1 / LATENT_STRIDE, mode="bicubic", align_corners=False
    )


def pad_to_latent_grid(frames: Tensor) -> Tensor:
    """Repeat the last row and column until H and W are multiples of the latent stride."""
    height, width = frames.shape[-2:]
    bottom, right = -height % LATENT_STRIDE, -width % LATENT_STRIDE
    if not bottom and not right:
        return frames
    return F.pad(frames, (0, right, 0, bottom), mode="replicate")
