"""The forms that a clip in memory may take, in and out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dloral.errors import OptionError

Picture = Image.Image | np.ndarray | Tensor

_FORMS = "give float (T, 3, H, W) in [0, 1], uint8 (T, 3, H, W) or (T, H, W, 3), or PIL images"
_OVERSHOOT = 0.5
"""Beyond [0, 1], more than a bicubic enlargement overshoots; values further out are codes or a
different range."""


def as_frames(frames: Picture | Sequence[Picture]) -> Tensor:
    """Any accepted form of a clip -> float32 (T,3,H,W) in [0, 1]; a PIL image is a clip of one.

    Raises :class:`OptionError` for any other form. Values are not looked at: :func:`check_range`.
    """
    if isinstance(frames, Image.Image):
        frames = [frames]
    clip = _stacked(frames) if isinstance(frames, list | tuple) else _as_tensor(frames)
    shape = tuple(clip.shape)
    if clip.ndim == 4 and clip.shape[1] != 3 and clip.shape[-1] == 3:
        clip = clip.permute(0, 3, 1, 2)
    if clip.ndim != 4 or clip.shape[1] != 3 or not clip.numel():
        raise OptionError(
            "frames have shape {value}{hint}",
            remedy=_FORMS,
            value=shape,
            hint=_hint(shape),
        )
    if clip.dtype == torch.uint8:
        return clip.float() / 255
    if not clip.is_floating_point():
        raise OptionError(
            "frames are {value}", remedy="give uint8, or float in [0, 1]", value=_dtype_name(clip)
        )
    return clip.float()


def checked_frames(frames: Picture | Sequence[Picture]) -> Tensor:
    """:func:`as_frames`, and :func:`check_range`."""
    clip = as_frames(frames)
    check_range(clip)
    return clip


def check_range(clip: Tensor) -> None:
    """OptionError if the values of frames (T,3,H,W) are not meant to be in [0, 1], or are not
    finite."""
    least, most = (float(value) for value in torch.aminmax(clip))
    if not (least >= -_OVERSHOOT and most <= 1 + _OVERSHOOT):  # NaN is neither
        raise OptionError(
            "frames hold values from {least:.4g} to {most:.4g}",
            remedy="give uint8, or float in [0, 1]",
            least=least,
            most=most,
        )


def _stacked(pictures: Sequence[Picture]) -> Tensor:
    if not pictures:
        raise OptionError("frames are an empty list", remedy="give at least one frame")
    tensors = [_as_tensor(picture) for picture in pictures]
    shapes = list(dict.fromkeys(tuple(tensor.shape) for tensor in tensors))
    if len(shapes) > 1:
        raise OptionError(
            "frames are of different sizes: {first} and {value}",
            remedy="give frames of one size",
            first=shapes[0],
            value=shapes[1],
        )
    kinds = sorted({_dtype_name(tensor) for tensor in tensors})
    if len({tensor.is_floating_point() for tensor in tensors}) > 1:
        raise OptionError(
            "frames are of different types: {value}",
            remedy="give uint8 or float for all of them",
            value=" and ".join(kinds),
        )
    return torch.stack(tensors)


def _as_tensor(picture: Any) -> Tensor:
    if isinstance(picture, Tensor):
        return picture
    if isinstance(picture, Image.Image):
        if picture.mode.startswith(("I", "F")):  # Pillow would cut it off at 255
            raise OptionError(
                "a PIL image has the mode {value}, of more than 8 bits",
                remedy="give float arrays in [0, 1], or convert it to RGB",
                value=picture.mode,
            )
        # known to be (H,W,3), however high it is
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    if not isinstance(picture, np.ndarray):
        raise OptionError("frames are of type {value}", remedy=_FORMS, value=type(picture).__name__)
    try:
        # Copied where necessary: arrays of pictures are often read-only or flipped views.
        return torch.from_numpy(np.require(picture, requirements=["C", "W"]))
    except TypeError as error:  # texts, objects, long doubles
        raise OptionError("frames are {value}", remedy=_FORMS, value=picture.dtype) from error


def _hint(shape: Sequence[int]) -> str:
    if 0 in shape:
        return ", which holds no pixels"
    if len(shape) == 4 and 4 in (shape[1], shape[-1]):
        return ", with transparency: leave it out"
    if len(shape) == 3 and 3 in (shape[0], shape[-1]):
        return ", of one frame: put it in a list"
    return ", which may be grey: repeat its channel three times" if 3 not in shape else ""


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


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
