"""Cropping that the container asks for: a clean aperture in MP4 and MOV, PixelCrop in Matroska.

FFmpeg keeps it beside a stream's parameters, where PyAV does not look. Muxers do look there, so it
is read from the header of a file in memory, made from the stream's description alone.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from io import BytesIO
from typing import NamedTuple

import av
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream
from torch import Tensor

from dloral.video.boxes import box_at, boxes_in
from dloral.video.matroska import SEGMENT, TRACK, TRACKS, VIDEO, ebml_child, ebml_children

_PIXEL_CROP = (0x54CC, 0x54BB, 0x54DD, 0x54AA)  # RFC 9559, 5.1.4.1.28.10 and following
_TO_STSD = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_ENTRY = 78
"""Bytes of a picture's sample entry before its boxes (ISO/IEC 14496-12, 12.1.3)."""


class Crop(NamedTuple):
    """Rows and columns of a stored picture that are not shown, counted before it is turned."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what is shown of a picture."""
        return height - self.top - self.bottom, width - self.left - self.right

    def of(self, pixels: Tensor) -> Tensor:
        """What is shown of ``pixels`` (C,H,W)."""
        if not any(self):
            return pixels
        height, width = pixels.shape[-2:]
        shown = pixels[:, self.top : height - self.bottom, self.left : width - self.right]
        return shown.contiguous()


NO_CROP = Crop()


def crop_of(container: InputContainer, stream: VideoStream, frame: VideoFrame) -> Crop:
    """What the container says of frames stored like ``frame``; NO_CROP where it says nothing, or
    would leave nothing."""
    kinds = set(container.format.name.split(","))
    if "mov" in kinds:
        crop = _clean_aperture(_header(stream, "mov"))
    elif "matroska" in kinds:
        crop = _pixel_crop(_header(stream, "matroska"))
    else:
        return NO_CROP
    is_possible = min(crop) >= 0 and min(crop.size_of(frame.height, frame.width)) > 0
    return crop if is_possible else NO_CROP


def _header(stream: VideoStream, kind: str) -> bytes:
    """A file that describes the stream and holds no frames; empty if FFmpeg writes none."""
    file = BytesIO()
    options = {"movflags": "empty_moov"} if kind == "mov" else {}
    try:
        with av.open(file, "w", format=kind, container_options=options) as output:
            output.add_stream_from_template(stream, opaque=True)
            output.start_encoding()
    except (av.FFmpegError, ValueError):
        return b""
    return file.getvalue()


def _clean_aperture(header: bytes) -> Crop:
    """Of ``clap`` (ISO/IEC 14496-12, 12.1.4.1), as FFmpeg's own muxer writes it: its numbers give
    whole pixels on all sides."""
    _, entry = next(boxes_in(box_at(header, *_TO_STSD)[8:]), (b"", b""))
    clap = box_at(entry[_ENTRY:], b"clap")
    if len(clap) < 32:
        return NO_CROP
    numbers = struct.unpack(">8i", clap[:32])
    wide, high, across, down = (Fraction(*numbers[at : at + 2]) for at in range(0, 8, 2))
    width, height = struct.unpack(">2H", entry[24:28])
    left, top = (width - wide) / 2 + across, (height - high) / 2 + down
    return Crop(int(left), int(top), int(width - wide - left), int(height - high - top))


def _pixel_crop(header: bytes) -> Crop:
    told = dict(ebml_children(ebml_child(header, SEGMENT, TRACKS, TRACK, VIDEO) or b""))
    return Crop(*(int.from_bytes(told.get(side, b""), "big") for side in _PIXEL_CROP))
