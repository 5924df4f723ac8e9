"""Uncompressed frames in a pipe: y4m (YUV4MPEG2) and raw video, their headers and their bytes.

Source: mjpegtools' yuv4mpeg(5), and the names of deeper formats that FFmpeg and x265 added.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av import VideoFrame
from av.video.plane import VideoPlane

from dloral.errors import InputError, OptionError, Setting
from dloral.video.colour import FULL, LIMITED
from dloral.video.filters import BOTTOM_FIRST, TOP_FIRST

Y4M = "y4m"

MAGIC = b"YUV4MPEG2"
FRAME_MAGIC = b"FRAME"
LONGEST_LINE = 1024
"""Bytes of a header line; FFmpeg writes fewer than 100."""

_USUAL_RATE = Fraction(25)
"""For y4m that does not state its rate, as in FFmpeg."""

_EIGHT_BITS = {
    "420": "yuv420p",
    "420jpeg": "yuv420p",
    "420mpeg2": "yuv420p",
    "420paldv": "yuv420p",
    "411": "yuv411p",
    "422": "yuv422p",
    "444": "yuv444p",
    "444alpha": "yuva444p",
    "mono": "gray",
}
_DEEPER = re.compile(r"^(420|422|444|mono)p?(9|10|12|14|16)$")
_ORDERS = {"t": TOP_FIRST, "b": BOTTOM_FIRST}
_RANGES = {"FULL": FULL, "LIMITED": LIMITED}

_PLANAR = tuple(
    family + depth
    for family in ("gray", "yuv420p", "yuv422p", "yuv444p", "gbrp")
    for depth in ("", "10le", "12le", "16le")
)
_PIXEL_BYTES = {
    "rgb24": (3,),
    "bgr24": (3,),
    "rgba": (4,),
    "bgra": (4,),
    "rgb48le": (6,),
    "rgba64le": (8,),
    "nv12": (1, 2),
    "p010le": (2, 4),
}
"""Bytes of a pixel in each plane, where samples are interleaved."""

RAW_FORMATS = (*_PLANAR, *_PIXEL_BYTES)
"""FFmpeg's names for the formats that raw video may have."""


@dataclass(frozen=True)
class PipeFormat:
    """What every frame of a pipe is. ``pixel_format``: FFmpeg's name; ``color_range``: FULL,
    LIMITED, or None where it does not say; ``is_framed``: y4m, a line before each frame."""

    width: int
    height: int
    pixel_format: str
    fps: Fraction
    aspect: Fraction = Fraction(1)
    color_range: int | None = None
    field_order: str | None = None
    is_framed: bool = True

    @property
    def has_alpha(self) -> bool:
        return "a" in self.pixel_format.replace("gray", "")

    def new_frame(self) -> VideoFrame:
        frame = VideoFrame(self.width, self.height, self.pixel_format)
        if self.color_range is not None:
            frame.color_range = self.color_range
        return frame


def planes_of(frame: VideoFrame) -> list[np.ndarray]:
    """The frame's planes as bytes (rows, bytes of a row), without padding, to read or write."""
    packed = _PIXEL_BYTES.get(frame.format.name)
    sample = 2 if max(part.bits for part in frame.format.components) > 8 else 1
    planes: tuple[VideoPlane, ...] = frame.planes
    rows = []
    for index, plane in enumerate(planes):
        size = plane.line_size * plane.height
        whole: np.ndarray[Any, Any] = np.frombuffer(memoryview(plane), np.uint8)[:size]
        width = plane.width * (packed[index] if packed else sample)
        rows.append(whole.reshape(plane.height, -1)[:, :width])
    return rows


def parse_y4m(line: bytes, name: Any, usual_fps: Fraction | None = None) -> PipeFormat:
    """The format given by y4m's first line. ``name``: of the source, for InputError;
    ``usual_fps``: where the line has no rate."""
    words = line.decode("ascii", "replace").split(" ")[1:]
    told = {word[0]: word[1:] for word in words if word and word[0] != "X"}
    extensions = dict(word[1:].partition("=")[::2] for word in words if word.startswith("X"))
    try:
        width, height = int(told["W"]), int(told["H"])
        fps = _ratio(told.get("F", "0:0")) or usual_fps or _USUAL_RATE
        aspect = _ratio(told.get("A", "0:0")) or Fraction(1)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            "{path} has a damaged y4m header ({value!r})",
            remedy="write it again, for example with ffmpeg's -f yuv4mpegpipe",
            path=name,
            value=line.decode("ascii", "backslashreplace")[:80],
        ) from error
    chroma = told.get("C", "420")
    pixel_format = _EIGHT_BITS.get(chroma)
    if pixel_format is None and (deeper := _DEEPER.match(chroma)):
        family = "gray" if deeper[1] == "mono" else f"yuv{deeper[1]}p"
        pixel_format = f"{family}{deeper[2]}le"
    if pixel_format is None:
        raise InputError(
            "{path} is y4m of an unknown pixel format (C{value})",
            remedy="convert it, for example with ffmpeg's -pix_fmt yuv420p or yuv420p10le",
            path=name,
            value=chroma,
        )
    return PipeFormat(
        width,
        height,
        pixel_format,
        fps,
        aspect,
        _RANGES.get(extensions.get("COLORRANGE", "")),
        _ORDERS.get(told.get("I", "p")),
    )


def _ratio(text: str) -> Fraction | None:
    """``30000:1001``; None for 0:0, which means unknown. ValueError for anything else."""
    above, _, below = text.partition(":")
    ratio = Fraction(int(above), int(below)) if int(below) else Fraction(0)
    if ratio < 0:
        raise ValueError(text)
    return ratio or None


def y4m_header(form: PipeFormat) -> bytes:
    """The first line of what is written: 4:2:0, 4:2:2 or 4:4:4 of 8 or 10 bits, limited range."""
    chroma = form.pixel_format.removeprefix("yuv").removesuffix("le").replace("p", "", 1)
    if bits := chroma[3:]:
        colours = f"C{chroma[:3]}p{bits} XYSCSS={chroma[:3]}P{bits}"
    else:
        colours = "C420mpeg2 XYSCSS=420MPEG2" if chroma == "420" else f"C{chroma}"
    rate, aspect = (f"{value.numerator}:{value.denominator}" for value in (form.fps, form.aspect))
    line = f"W{form.width} H{form.height} F{rate} Ip A{aspect} {colours} XCOLORRANGE=LIMITED\n"
    return MAGIC + b" " + line.encode()


def raw_format(
    size: tuple[int, int] | None, pixel_format: str | None, fps: Fraction | None
) -> PipeFormat | None:
    """The format that the user gives for raw video; None if nothing but a rate is given.

    OptionError if a part is missing, or the pixel format is not known.
    """
    if size is None and pixel_format is None:
        return None
    given = {"size": size, "pixel_format": pixel_format, "fps": fps}
    missing = [name for name, value in given.items() if value is None]
    if size is None or pixel_format is None or fps is None:
        raise OptionError(
            "raw video does not say what it is: {option} is missing",
            remedy="give {size}, {pixel_format} and {fps}",
            option=Setting(missing[0]),
            **{name: Setting(name) for name in given},
        )
    known = {pixel_format, f"{pixel_format}le"} & set(RAW_FORMATS)
    if not known:
        raise OptionError(
            "{option} is {value!r}",
            remedy=f"choose from {', '.join(RAW_FORMATS)}",
            option=Setting("pixel_format"),
            value=pixel_format,
        )
    return PipeFormat(*size, known.pop(), fps, is_framed=False)
