"""Opening of media files that strangers hand us: a closed list of containers, local files only.

FFmpeg can be led astray by a file's content: a playlist named ``.mp4`` opens other files and
network addresses. So each file is opened through a closed list of demuxers that hold their media
themselves, with ``file`` as the only protocol, and playlists, scripts and session descriptions are
unknown formats to us, whatever they are named.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.format import Flags
from av.stream import Stream
from av.video.stream import VideoStream

from dloral.errors import DLoRALError, InputError, ResourceError, Setting

MAX_SIDE = 16384
"""Pixels: the largest side of a picture that is read or written, and H.264's own limit."""

MAX_INPUT_PIXELS = 2**26
"""8192 x 8192: as floats such a frame takes 0.8 GB."""

MAX_OUTPUT_PIXELS = 2**28
"""16384 x 16384: a 4096 x 2160 clip enlarged four times still fits."""

MAX_DAYS = 31
"""The longest clip that is opened: a month of surveillance footage."""

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,gif,flv,asf,ogg,mxf,"
    "yuv4mpegpipe,ivf,apng,dv,h261,h263,h264,hevc,vvc,m4v,vc1,av1,obu,mjpeg,dirac,cavsvideo,"
    "dnxhd,wtv,nut,rm,gxf,nsv,nuv,pva,ty,flic,smk,bink,roq,live_flv"
)
_OPTIONS = {
    "format_whitelist": _FORMATS,
    "protocol_whitelist": "file",
    "enable_drefs": "0",  # MOV: never follow a reference to another file
}
_SEEKABLE = {"mov", "matroska"}
"""Containers with an index that leads to the key frame before any time."""

_LOSSY = {"dv", "wtv", "flv", "live_flv", "pva", "ty"}

_NETWORK = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")


def existing_path(source: str | Path) -> Path:
    """``source`` as a path to something that exists and may be read; InputError if not."""
    text = os.fspath(source)
    if _NETWORK.match(text):
        raise InputError(
            "{value} is an address, not a local file", remedy="download it first", value=text
        )
    if not text or "\0" in text:
        raise InputError(
            "{value!r} is not a file name",
            remedy="give a video, an image or a folder of frames",
            value=text,
        )
    path = Path(text)
    try:
        path.stat()
        if path.is_dir():
            next(path.iterdir(), None)
        elif path.is_file():
            with path.open("rb"):
                pass
        else:
            raise InputError(
                "{path} is a device or a pipe",
                remedy="give a file, a folder of frames, or - for standard input",
                path=path,
            )
    except OSError as error:
        raise InputError(
            "{path} cannot be read: {value}", path=path, value=reason(error)
        ) from error
    return path


def first_bytes(path: Path, count: int = 64) -> bytes:
    """The start of a file; InputError if it has none."""
    try:
        with path.open("rb") as file:
            start = file.read(count)
    except OSError as error:
        raise InputError(
            "{path} cannot be read: {value}", path=path, value=reason(error)
        ) from error
    if not start:
        raise InputError(
            "{path} is empty (0 bytes)",
            remedy="give a video, an image or a folder of frames",
            path=path,
        )
    return start


@contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """An opened container of the closed list; InputError in one line if it is not one.

    Errors that FFmpeg raises inside the ``with`` block become InputError as well.
    """
    try:
        container = av.open(
            f"file:{path.resolve()}", options=dict(_OPTIONS), metadata_errors="replace"
        )
    except (av.FFmpegError, UnicodeError) as error:
        raise InputError(
            "{path} is not a readable video or image: it holds {value}",
            remedy="give mp4, mov, mkv, webm, avi, mpg, gif, an image or a folder of frames",
            path=path,
            value=_kind_of_content(path),
        ) from error
    try:
        with container:
            yield container
    except av.FFmpegError as error:
        if other := not_damaged(error, path):
            raise other from error
        raise InputError(
            "{path} cannot be decoded ({value}); it is damaged", path=path, value=reason(error)
        ) from error


def _kind_of_content(path: Path) -> str:
    start = first_bytes(path, 512)
    if start.startswith((b"#EXTM3U", b"ffconcat", b"v=0")) or b"<MPD" in start:
        return "a playlist, which refers to other files"
    if not any(start):
        return "zeros only"
    if all(byte in b"\t\r\n" or byte >= 32 for byte in start):
        return "text"
    return "damaged data or an unknown format"


def picture_stream(container: InputContainer, path: Path) -> VideoStream:
    """The clip's moving picture: the first video stream that is not a cover image."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        found = "sound only" if container.streams.audio else "no picture"
        raise InputError(
            "{path} holds {value}",
            remedy="give a video, an image or a folder of frames",
            path=path,
            value=found,
        )
    stream = max(streams, key=lambda stream: (bool(stream.disposition & 1), -stream.index))
    if stream.codec_context is None:
        raise InputError(
            "{path} holds a picture of an unknown codec",
            remedy="convert it to H.264 first",
            path=path,
        )
    # Frame threads deliver late, and a frame shown once more must have arrived by then.
    stream.thread_type = "SLICE" if repeats_frames(stream) else "AUTO"
    return stream


def can_seek(container: InputContainer) -> bool:
    """Whether a seek reliably lands on a key frame at or before the time asked for."""
    return bool(_SEEKABLE & set(container.format.name.split(",")))


def has_timestamps(container: InputContainer) -> bool:
    """Whether packets say when they are shown; AVI's only say in which order they are stored."""
    return container.format.name != "avi"


def has_times(container: InputContainer) -> bool:
    """Whether packets have any times: a raw stream of H.264 and the like has none."""
    return not has_flag(container, Flags.no_timestamps)


def forgives_damage(container: InputContainer) -> bool:
    """Whether packets are expected to be lost in transit: broadcasts and raw streams.

    FFmpeg's decoders continue after them; elsewhere a packet that cannot be decoded means a damaged
    file, and is reported.
    """
    lossy = has_flag(container, Flags.ts_discont) or has_flag(container, Flags.no_timestamps)
    return lossy or container.format.name in _LOSSY


def repeats_frames(stream: Stream) -> bool:
    """Whether an empty packet shows the previous frame once more (Theora, 7.1)."""
    context = stream.codec_context
    return context is not None and context.codec.canonical_name == "theora"


def has_flag(container: InputContainer, flag: Flags) -> bool:
    """Whether FFmpeg sets this flag for the container's format."""
    return bool(container.format.flags & cast(int, flag.value))


def check_size(path: Path, height: int, width: int, most: int = MAX_INPUT_PIXELS) -> None:
    """InputError if a picture of this size is empty or absurdly large."""
    if height < 1 or width < 1:
        raise InputError(
            f"{{path}} has no picture size ({width}x{height}); it is damaged", path=path
        )
    if max(height, width) > MAX_SIDE or height * width > most:
        raise InputError(
            f"{{path}} is {width}x{height}; at most {MAX_SIDE} pixels a side and "
            f"{most} pixels in all can be read",
            remedy="make it smaller first",
            path=path,
        )


def not_damaged(error: av.FFmpegError, path: Path) -> DLoRALError | None:
    """What to raise if FFmpeg could not get memory or a thread, or if it has no decoder for what
    the file holds; None for other errors."""
    if isinstance(error, av.PatchWelcomeError | av.DecoderNotFoundError):
        return InputError(
            "{path} is of a kind that this ffmpeg cannot decode",
            remedy="convert it first",
            path=path,
        )
    if error.errno not in (errno.ENOMEM, errno.EAGAIN):
        return None
    return ResourceError(
        "memory has run out, or no more threads may run",
        remedy="close other programs, or give a smaller {scale}",
        scale=Setting("scale"),
    )


def reason(error: BaseException) -> str:
    """What the system or FFmpeg says, as one short phrase without paths."""
    if isinstance(error, OSError) and error.errno in errno.errorcode:
        return os.strerror(error.errno or 0).lower()
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).lower()


def version_of(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from a later one of the same name; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def seconds(value: Fraction | float) -> Fraction:
    """Exact seconds; a float counts as the decimal that was typed: 0.1 is 1/10."""
    return value if isinstance(value, Fraction) else Fraction(repr(float(value)))
