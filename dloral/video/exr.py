"""OpenEXR pictures: linear light in floats, by FFmpeg's decoder."""

from __future__ import annotations

from pathlib import Path

import av
from av import VideoFrame
from torch import Tensor

from dloral.errors import InputError
from dloral.video.colour import frame_to_rgb
from dloral.video.hdr import LINEAR
from dloral.video.header import Header
from dloral.video.media import check_size, first_bytes

_SIGNATURE = b"\x76\x2f\x31\x01"
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": "exr_pipe"}


def is_exr(path: Path) -> bool:
    return first_bytes(path, 4) == _SIGNATURE


def exr_header(path: Path) -> Header:
    """As :func:`dloral.video.images.image_header`."""
    frame = _decoded(path)
    has_alpha = "gbra" in frame.format.name
    return Header(
        frame.height, frame.width, "exr", 32, has_alpha=has_alpha, primaries=1, transfer=LINEAR
    )


def load_exr(path: Path, keep_alpha: bool) -> Tensor:
    """(3,H,W), or (4,H,W) with ``keep_alpha``: linear light from 0 up, 1 is white."""
    rgb = frame_to_rgb(_decoded(path), keep_alpha=keep_alpha)
    return rgb if len(rgb) in (3, 4) else rgb.expand(3, -1, -1).clone()


def _decoded(path: Path) -> VideoFrame:
    damaged = InputError(
        "{path} is not a readable image: damaged or cut off", remedy="get the whole file", path=path
    )
    try:
        with av.open(f"file:{path.resolve()}", format="exr_pipe", options=_OPTIONS) as container:
            stream = container.streams.video[0]
            check_size(path, stream.height, stream.width)
            frame = next(container.decode(stream), None)
    except (av.FFmpegError, IndexError) as error:
        raise damaged from error
    if frame is None or frame.is_corrupt:
        raise damaged
    if frame.format.name.startswith("gray"):
        frame = frame.reformat(format="gbrpf32le", threads=1)
    return frame
