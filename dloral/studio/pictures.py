"""Frames as pictures that a browser shows."""

import io

import torch
from PIL import Image
from torch import Tensor

from dloral.frames.clips import as_bytes
from dloral.frames.resize import resize_bicubic

PNG_LEVEL = 1
"""Of zlib: a preview is sent once and looked at; three times as fast as the usual 6."""


def png_of(frame: Tensor) -> bytes:
    """A frame (3,H,W) in [0, 1] as a PNG: exact but for 8 bits."""
    data = io.BytesIO()
    Image.fromarray(as_bytes(frame)).save(data, "PNG", compress_level=PNG_LEVEL)
    return data.getvalue()


def jpeg_of(frame: Tensor, most_side: int | None = None, quality: int = 90) -> bytes:
    """A frame (3,H,W) in [0, 1] as a JPEG with full colour resolution; made smaller where a side
    is longer than ``most_side``."""
    data = io.BytesIO()
    image = Image.fromarray(as_bytes(within(frame, most_side) if most_side else frame))
    image.save(data, "JPEG", quality=quality, subsampling=0)
    return data.getvalue()


def within(frame: Tensor, most_side: int) -> Tensor:
    """The frame, with no side longer than ``most_side`` pixels."""
    height, width = frame.shape[1:]
    if max(height, width) <= most_side:
        return frame
    ratio = most_side / max(height, width)
    small = max(1, round(height * ratio)), max(1, round(width * ratio))
    return resize_bicubic(frame[None].float(), *small)[0]


def stacked(above: Tensor, below: Tensor) -> Tensor:
    """Two frames (3,H,W) as one (3,2H,W): what the viewer takes, bicubic above, restored below."""
    return torch.cat([above.float(), below.float()], dim=1)
