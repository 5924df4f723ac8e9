"""The forms that a clip in memory may take, in and out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dloral.errors import OptionError


def as_frames(frames: Tensor | np.ndarray | Sequence[Image.Image | np.ndarray | Tensor]) -> Tensor:
    """Any accepted form of a clip -> float32 (T,3,H,W) in [0, 1]."""
    if isinstance(frames, list | tuple):
        pictures = [_as_tensor(picture) for picture in frames]
        if len({picture.shape for picture in pictures}) > 1:
            raise OptionError("frames are of different sizes; give frames of one size")
        clip = torch.stack(pictures) if pictures else torch.empty(0)
    else:
        clip = _as_tensor(frames)
    if clip.ndim == 4 and clip.shape[1] != 3 and clip.shape[-1] == 3:
        clip = clip.permute(0, 3, 1, 2)
    if clip.ndim != 4 or clip.shape[1] != 3 or not clip.numel():
        raise OptionError(
            f"frames have shape {tuple(clip.shape)}; give (T, 3, H, W) with at least one frame"
        )
    if clip.dtype == torch.uint8:
        return clip.float() / 255
    if not clip.is_floating_point():
        raise OptionError(f"frames are {clip.dtype}; give uint8, or float in [0, 1]")
    return clip.float()


def _as_tensor(picture: Any) -> Tensor:
    if isinstance(picture, Tensor):
        return picture
    # Copied where necessary: arrays of pictures are often read-only or flipped views.
    if isinstance(picture, Image.Image):  # known to be (H,W,3), however high it is
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    return torch.from_numpy(np.require(picture, requirements=["C", "W"]))


def as_bytes(frame: Tensor) -> np.ndarray:
    """A frame (3,H,W) in [0, 1], on any device, as uint8 (H,W,3); values outside are clipped."""
    codes = frame.float().clamp(0, 1).mul(255).round().byte()
    return codes.permute(1, 2, 0).contiguous().cpu().numpy()


def as_output(restored: Tensor, output_type: str) -> Any:
    """Restored frames (T,3,H,W) in [0, 1], or latents, as ``output_type``: pt, latent, np, pil."""
    if output_type in ("pt", "latent"):
        return restored
    arrays = restored.permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return arrays
    return [Image.fromarray((array * 255).round().astype(np.uint8)) for array in arrays]
