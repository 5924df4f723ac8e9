"""Decoded frames to RGB floats and back, with the matrix and range that the tags specify.

Our own arithmetic instead of libswscale's: it is exact to rounding at 8 to 16 bits, places chroma
samples where the standards place them, and gives the same values on every machine.
Sources: ITU-R BT.601-7, BT.709-6, BT.2020-2 (matrices, ranges), ISO/IEC 23091-2 (code points).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from av import VideoFrame
from torch import Tensor

from dloral.errors import InputError
from dloral.video.alpha import fill_hidden_chroma

# ISO/IEC 23091-2 code points, as FFmpeg uses them
RGB, BT709, UNSPECIFIED, BT2020 = 0, 1, 2, 9
LIMITED, FULL = 1, 2

_LUMA = {  # matrix code point -> weights of red and blue in luma
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_PLANAR = re.compile(r"^(yuvj?|yuva|gbr|gbra|gray)(4\d\d)?p?(9|10|12|14|16)?(le)?$")
_REPACKED = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "nv16": "yuv422p",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "p010le": "yuv420p10le",
}
_AS_RGBA = ("mono", "xyz", "bayer", "ya8", "ya16")  # the last two: grey with alpha
_SEMI_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
"""Formats that graphics cards take, and the planar format each is made from."""

_CENTRED_CHROMA = {"mjpeg", "mpeg1video", "h263", "flv1"}
"""Codecs whose chroma sits between the luma samples; all others have it at the left one."""


def frame_to_rgb(frame: VideoFrame, codec: str = "", keep_alpha: bool = False) -> Tensor:
    """A decoded frame as float32 (3,H,W) RGB in [0, 1], as stored (not yet turned upright).
    With ``keep_alpha`` a frame that has transparency is (4,H,W), straight alpha last.

    Untagged YUV is BT.709 from 1280 columns or 577 lines up, else BT.601, and limited in range,
    as players guess. Without ``keep_alpha`` transparent pixels are shown over white, as on a page.
    """
    if _is_float(frame):
        return _float_rgb(frame, keep_alpha)
    frame = planar(frame)
    if frame.format.name.startswith("rgba"):
        rgba = _packed_rgba(frame)
        return rgba if keep_alpha else over_white(rgba[:3], rgba[3]).contiguous()
    how = meaning_of(frame, codec)
    assert how is not None, "the format is planar"
    planes = [_floats(codes) for codes in planes_of(frame)]
    has_alpha = frame.format.name.startswith(("yuva", "gbra"))
    alpha = planes[-1] / how.peak if has_alpha else None
    if alpha is not None and how.family == "yuv" and planes[1].shape != alpha.shape:
        planes[1:3] = fill_hidden_chroma(torch.stack(planes[1:3]), alpha)
    rgb = planes_to_rgb(planes[:3], how)
    if alpha is None:
        return rgb
    return torch.cat([rgb, alpha[None]]) if keep_alpha else over_white(rgb, alpha)


def planar(frame: VideoFrame) -> VideoFrame:
    """The frame in a format that is read here: planes of integers or of floats, or packed RGBA.

    In one thread, like all such conversions here: with more, swscale was seen to give different
    rows at the edges of its slices from one call to the next (p010le, 36 x 21).
    """
    if _PLANAR.match(frame.format.name) or _is_float(frame):
        return frame
    return frame.reformat(format=_readable_format(frame), threads=1)


@dataclass(frozen=True)
class Meaning:
    """How a frame's codes are to be read. ``family``: yuv, gbr or gray; ``peak``: the largest code;
    ``full``: whether all of them are used; ``matrix``: the code point; ``centred``: whether chroma
    sits between the luma samples."""

    family: str
    peak: float
    full: bool
    matrix: int
    centred: bool


def meaning_of(frame: VideoFrame, codec: str) -> Meaning | None:
    """For a planar frame of integers; None for others."""
    match = _PLANAR.match(frame.format.name)
    if match is None:
        return None
    family = match[1].removesuffix("a").removesuffix("j")
    peak = float(2 ** frame.format.components[0].bits - 1)
    if family == "yuv":
        full = frame.color_range == FULL or match[1] == "yuvj"
        return Meaning(family, peak, full, matrix_of(frame), codec in _CENTRED_CHROMA)
    return Meaning(family, peak, frame.color_range != LIMITED, UNSPECIFIED, False)


def planes_to_rgb(planes: list[Tensor], how: Meaning) -> Tensor:
    """Float32 (3,H,W) RGB in [0, 1] of planes (h,w) of float32 codes."""
    if how.family == "gbr":
        green, blue, red = planes
        rgb = torch.stack([red, green, blue]).div_(how.peak)
    elif how.family == "gray":
        luma = _to_unit_luma(planes[0], how.peak, how.full)
        rgb = luma.expand(3, -1, -1).clone()
    else:
        rgb = _yuv_to_rgb(planes, how.peak, how.full, how.matrix, how.centred)
    return rgb.clamp_(0, 1)


def planes_of(frame: VideoFrame) -> list[np.ndarray[Any, Any]]:
    """The planes (h,w) of a planar frame: views of its codes, of 8 or 16 bits."""
    return [_plane(frame, index) for index in range(len(frame.planes))]


def matrix_of(frame: VideoFrame) -> int:
    """The frame's matrix code point, guessed from its size if it does not say."""
    matrix = int(frame.colorspace)
    if matrix in _LUMA:
        return matrix
    if matrix not in (RGB, UNSPECIFIED, 3):
        raise InputError(
            "colour matrix number {value} is not supported",
            remedy="convert it to BT.709 first",
            value=matrix,
        )
    return BT709 if frame.width >= 1280 or frame.height > 576 else 6


def is_known_matrix(matrix: int) -> bool:
    """Whether YUV with this code point can be read."""
    return matrix in _LUMA


def may_be_seen_through(frame: VideoFrame) -> bool:
    """Whether the frame's format has transparency."""
    fmt = frame.format
    return fmt.has_palette or any(part.is_alpha for part in fmt.components)


def over_white(rgb: Tensor, alpha: Tensor) -> Tensor:
    """``rgb`` (3,H,W) with straight ``alpha`` (H,W), both in [0, 1], over a white page."""
    return rgb * alpha + (1 - alpha)


def rgb_to_frame(rgb: Tensor, pixel_format: str, matrix: int) -> VideoFrame:
    """Float (3,H,W) in [0, 1] as a frame of ``pixel_format``: limited range YUV, or full RGB.
    Formats with alpha take (4,H,W).

    ``pixel_format``: yuv420p, yuv422p, yuv444p, yuva420p, yuva444p with or without ``10le``; bgr0,
    bgra, gbrp10le or gbrap10le; nv12 or p010le.
    """
    if pixel_format in _SEMI_PLANAR:  # the same samples, in another order
        planar = rgb_to_frame(rgb, _SEMI_PLANAR[pixel_format], matrix)
        return planar.reformat(format=pixel_format, threads=1)
    rgb = rgb.detach().to("cpu", torch.float32).clamp(0, 1)
    height, width = rgb.shape[-2:]
    frame = VideoFrame(width, height, pixel_format)
    if pixel_format in ("bgr0", "bgra"):
        pixels = torch.zeros(height, width, 4)
        pixels[..., :3] = rgb[:3].flip(0).permute(1, 2, 0)
        if pixel_format == "bgra":
            pixels[..., 3] = rgb[3]
        _fill(frame, 0, pixels.reshape(height, -1).mul_(255), 255)
        return frame
    bits = 10 if "10" in pixel_format else 8
    peak = 2**bits - 1
    if pixel_format.startswith("gbr"):
        planes = tuple(rgb[channel] * peak for channel in (1, 2, 0))
    else:
        even = F.pad(rgb[None, :3], (0, width % 2, 0, height % 2), mode="replicate")[0]
        luma, *chroma = _rgb_to_yuv(even, pixel_format, matrix, bits)
        planes = (luma[:height, :width], *chroma)
        if "444" in pixel_format:
            planes = tuple(plane[:height, :width] for plane in planes)
    if pixel_format.startswith(("yuva", "gbra")):
        planes = (*planes, rgb[3] * peak)
    for index, plane in enumerate(planes):
        _fill(frame, index, plane, peak)
    return frame


def _is_float(frame: VideoFrame) -> bool:
    return frame.format.name in ("gbrpf32le", "gbrapf32le")


def _readable_format(frame: VideoFrame) -> str:
    fmt = frame.format
    if fmt.is_rgb or fmt.has_palette or fmt.name.startswith(_AS_RGBA):
        return "rgba64le" if max(part.bits for part in fmt.components) > 8 else "rgba"
    wide = "yuva444p16le" if may_be_seen_through(frame) else "yuv444p16le"
    return _REPACKED.get(fmt.name, wide)


def _packed_rgba(frame: VideoFrame) -> Tensor:
    wide = frame.format.name == "rgba64le"
    plane = frame.planes[0]
    dtype: Any = np.uint16 if wide else np.uint8
    rows = np.frombuffer(memoryview(plane), dtype).reshape(frame.height, -1)[:, : frame.width * 4]
    pixels = rows.reshape(frame.height, frame.width, 4).astype(np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1).div_(65535.0 if wide else 255.0)


def _float_rgb(frame: VideoFrame, keep_alpha: bool) -> Tensor:
    """gbrpf32le or gbrapf32le, as in OpenEXR: linear light from 0 on, alpha premultiplied."""
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), "<f4")[: plane.line_size // 4 * plane.height]
        pixels = rows.reshape(plane.height, -1)[:, : plane.width].astype(np.float32)
        planes.append(torch.from_numpy(np.nan_to_num(pixels, posinf=1e4)).clamp(0, 1e4))
    green, blue, red, *alpha = planes
    rgb = torch.stack([red, green, blue])
    if not alpha:
        return rgb
    opacity = alpha[0].clamp(0, 1)
    if not keep_alpha:
        return rgb + (1 - opacity)
    return torch.cat([rgb / opacity.clamp(min=1e-4), opacity[None]])


def _plane(frame: VideoFrame, index: int) -> np.ndarray[Any, Any]:
    plane = frame.planes[index]
    wide = frame.format.components[0].bits > 8
    dtype: Any = np.dtype("<u2") if wide else np.uint8
    size = plane.line_size * plane.height
    codes: np.ndarray[Any, Any] = np.frombuffer(memoryview(plane), np.uint8)[:size].view(dtype)
    return codes.reshape(plane.height, -1)[:, : plane.width]


def _floats(codes: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(codes.astype(np.float32))


def _fill(frame: VideoFrame, index: int, codes: Tensor, peak: int) -> None:
    """Round ``codes`` (h,w) and store them as plane ``index``."""
    plane = frame.planes[index]
    dtype: Any = np.dtype("<u2") if peak > 255 else np.uint8
    rows = np.frombuffer(memoryview(plane), np.uint8)
    rows = rows[: plane.line_size * plane.height].view(dtype).reshape(plane.height, -1)
    rows[:, : codes.shape[1]] = codes.round().clamp(0, peak).numpy().astype(dtype)


def _to_unit_luma(codes: Tensor, peak: float, full: bool) -> Tensor:
    if full:
        return codes / peak
    step = (peak + 1) / 256
    return (codes - 16 * step) / (219 * step)


def _yuv_to_rgb(
    planes: list[Tensor], peak: float, full: bool, matrix: int, centred: bool
) -> Tensor:
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    luma = _to_unit_luma(planes[0], peak, full)
    step = (peak + 1) / 256
    middle, spread = 128 * step, (peak if full else 224 * step)
    height, width = luma.shape
    cb, cr = (
        _spread(_spread(plane, width, 1, centred), height, 0, True).sub_(middle).div_(spread)
        for plane in planes[1:]
    )
    rgb = torch.empty(3, height, width)
    torch.add(luma, cr, alpha=2 * (1 - red), out=rgb[0])
    torch.add(luma, cb, alpha=2 * (1 - blue), out=rgb[2])
    torch.add(luma, cb, alpha=-2 * (1 - blue) * blue / green, out=rgb[1])
    rgb[1].add_(cr, alpha=-2 * (1 - red) * red / green)
    return rgb


def _spread(plane: Tensor, length: int, axis: int, centred: bool) -> Tensor:
    """Linear interpolation of chroma along ``axis`` to ``length`` luma positions."""
    size = plane.shape[axis]
    if size == length:
        return plane.clone()
    factor = 2 if size * 2 >= length else 4
    at = torch.arange(length, dtype=torch.float32)
    at = (at + 0.5) / factor - 0.5 if centred else at / factor
    at = at.clamp(0, size - 1)
    low = at.floor()
    weight = (at - low).unsqueeze(1 - axis)
    below = plane.index_select(axis, low.long())
    above = plane.index_select(axis, (low + 1).clamp(max=size - 1).long())
    return below.lerp_(above, weight.expand_as(below))


def _rgb_to_yuv(rgb: Tensor, pixel_format: str, matrix: int, bits: int) -> tuple[Tensor, ...]:
    """Code values (not yet rounded) of limited range Y, Cb, Cr."""
    red, blue = _LUMA[matrix]
    luma = rgb[0] * red + rgb[1] * (1 - red - blue) + rgb[2] * blue
    cb = (rgb[2] - luma) / (2 * (1 - blue))
    cr = (rgb[0] - luma) / (2 * (1 - red))
    if "444" not in pixel_format:  # chroma at every second column: weights 1 2 1 around it
        cb, cr = (_halve_columns(plane) for plane in (cb, cr))
    if "420" in pixel_format:  # chroma between two lines: their mean
        cb, cr = ((plane[0::2] + plane[1::2]) / 2 for plane in (cb, cr))
    step = 2 ** (bits - 8)
    return (16 + 219 * luma) * step, (128 + 224 * cb) * step, (128 + 224 * cr) * step


def _halve_columns(plane: Tensor) -> Tensor:
    even, odd = plane[:, 0::2], plane[:, 1::2]
    before = torch.cat([plane[:, :1], odd[:, :-1]], dim=1)
    return (before + 2 * even + odd) / 4
