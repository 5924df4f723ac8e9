"""Bicubic enlargement, the flow net's small frames, and padding to what the nets need.

Frames are float (T,3,H,W) in [0, 1] unless said otherwise.
"""

import torch.nn.functional as F
from torch import Tensor

LATENT_STRIDE = 8
"""Pixels a side of a latent cell in both models that there are, and in packs of training data. Of a
loaded model ask :attr:`dloral.generator.Generator.latent_stride`."""


BICUBICS = ("torch", "pil")
"""Kernels of :func:`resize_bicubic`: a = -0.75 as in torch and OpenCV, a = -0.5 as in Pillow."""


def resize_bicubic(frames: Tensor, height: int, width: int, kernel: str = "torch") -> Tensor:
    """Bicubic, pixel centres kept, clamped to [0, 1]; ``kernel``: one of :data:`BICUBICS`.

    torch's is both the generator's input and the enlargement every result is compared with. It has
    no antialiasing; Pillow's has, which counts where a frame becomes smaller.
    """
    if frames.shape[-2:] == (height, width):
        return frames
    resized = F.interpolate(
        frames,
        (height, width),
        mode="bicubic",
        align_corners=False,
        antialias=kernel == "pil",  # in torch this is Pillow's kernel, a = -0.5
    )
    return resized.clamp(0, 1) if resized.requires_grad else resized.clamp_(0, 1)


def shrink_for_flow(frames: Tensor, stride: int = LATENT_STRIDE) -> Tensor:
    """Frames (T,3,H,W), H and W multiples of ``stride``, at latent resolution
    (T,3,H/stride,W/stride), unclamped.

    Bicubic without antialiasing, as the released flow weights were trained (notes, step 2).
    """
    if stride == 1:
        return frames
    return F.interpolate(frames, scale_factor=1 / stride, mode="bicubic", align_corners=False)


def pad_to_latent_grid(frames: Tensor, stride: int = LATENT_STRIDE) -> Tensor:
    """Repeat the last row and column until H and W are multiples of ``stride``."""
    height, width = frames.shape[-2:]
    bottom, right = -height % stride, -width % stride
    if not bottom and not right:
        return frames
    return F.pad(frames, (0, right, 0, bottom), mode="replicate")
