"""Bicubic enlargement, the flow net's small frames, and padding to what the nets need.

Frames are float (T,3,H,W) in [0, 1] unless said otherwise.
"""

import math

import torch
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
    no antialiasing; Pillow's does, which matters when a frame is shrunk.
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


def enlargement(small: tuple[int, int], large: tuple[int, int]) -> float:
    """The factor by which a frame's sides grow, as the (geometric) mean of both."""
    return math.sqrt(math.prod(large) / math.prod(small))


def resize_bicubic_part(
    frames: Tensor, height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]
) -> Tensor:
    """The rows from ``rows[0]`` to before ``rows[1]``, and columns likewise, of the result of
    :func:`resize_bicubic`, to within 1e-5; it takes memory for that part alone."""
    if (rows, columns) == ((0, height), (0, width)):
        return resize_bicubic(frames, height, width)
    if frames.shape[-2:] != (height, width):
        frames = _resized(frames, -1, width, *columns)
        return _resized(frames, -2, height, *rows).clamp_(0, 1)
    return frames[..., rows[0] : rows[1], columns[0] : columns[1]]


def _resized(frames: Tensor, axis: int, size: int, first: int, end: int) -> Tensor:
    """One axis of a bicubic resize to ``size``: the results from ``first`` to before ``end``."""
    old = frames.shape[axis]
    at = (torch.arange(first, end, dtype=torch.float64) + 0.5) * old / size - 0.5
    below = at.floor()
    part = (at - below).to(frames)
    shape = (-1, 1) if axis == -2 else (-1,)
    made = None
    for tap in (-1, 0, 1, 2):
        weight = _cubic((part - tap).abs()).view(shape)
        index = (below.long() + tap).clamp(0, old - 1).to(frames.device)
        term = frames.index_select(axis, index) * weight
        made = term if made is None else made.add_(term)
    assert made is not None
    return made


def _cubic(distance: Tensor, a: float = -0.75) -> Tensor:
    """Keys' kernel at distances from 0 to 2."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, far)


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
