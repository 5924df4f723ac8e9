"""The frames of a pipe, read once, from its start to its end."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Generator
from fractions import Fraction
from io import FileIO
from itertools import count
from pathlib import Path

from av import VideoFrame

from dloral.errors import InputError, Setting
from dloral.video.filters import ShownFrame
from dloral.video.media import reason
from dloral.video.pipe_formats import (
    FRAME_MAGIC,
    LONGEST_LINE,
    MAGIC,
    PipeFormat,
    parse_y4m,
    planes_of,
)
from dloral.video.worker import LOOK_SECONDS, check_stopped

STANDARD_INPUT = Path("standard input")
"""What messages call it."""


def open_stream(told: PipeFormat | None, fps: Fraction | None) -> FrameStream:
    """Standard input as y4m, or as it was ``told``; InputError if it is empty or something else."""
    if sys.stdin is not None and sys.stdin.isatty():
        raise InputError(
            "{path} is a terminal",
            remedy="write frames to it, for example with ffmpeg -i clip.mp4 -f yuv4mpegpipe -",
            path=STANDARD_INPUT,
        )
    binary(0)
    file = FileIO(0, closefd=False)
    try:
        start = _read(file, len(MAGIC))
    except OSError as error:
        raise _unreadable(error) from error
    if not start:
        raise InputError(
            "{path} is empty (0 bytes)",
            remedy="check the output of the program before this one",
            path=STANDARD_INPUT,
        )
    if told is not None:
        if start == MAGIC:
            raise InputError(
                "{path} is y4m, which says its size itself",
                remedy="leave out {size} and {pixel_format}",
                path=STANDARD_INPUT,
                size=Setting("size"),
                pixel_format=Setting("pixel_format"),
            )
        return FrameStream(file, told, start)
    if start != MAGIC:
        raise InputError(
            "{path} is not y4m: it begins with {value!r}",
            remedy="write it with ffmpeg's -f yuv4mpegpipe, or describe raw frames with {size}, "
            "{pixel_format} and {fps}",
            path=STANDARD_INPUT,
            value=bytes(start),
            size=Setting("size"),
            pixel_format=Setting("pixel_format"),
            fps=Setting("fps"),
        )
    return FrameStream(file, parse_y4m(_line(file, "header"), STANDARD_INPUT, fps))


class FrameStream:
    """The frames of a pipe, from where it stands. ``form``: what each of them is."""

    def __init__(self, file: FileIO, form: PipeFormat, start: bytes | bytearray = b"") -> None:
        self.form = form
        self._file, self._start = file, bytes(start)
        self._count = 0
        self._peeked: VideoFrame | None = None

    def peek(self) -> VideoFrame | None:
        """The next frame, without consuming it; None at the end."""
        if self._peeked is None:
            self._peeked = self._next()
        return self._peeked

    def frames(self) -> Generator[ShownFrame, None, None]:
        """All remaining frames. InputError if the pipe ends within one of them."""
        length = 1 / self.form.fps
        for index in count():
            frame, self._peeked = self._peeked or self._next(), None
            if frame is None:
                return
            yield ShownFrame(frame, index * length, length)

    def _next(self) -> VideoFrame | None:
        try:
            if self.form.is_framed and not self._begins():
                return None
            return self._filled()
        except OSError as error:
            if isinstance(error, InputError):
                raise
            raise _unreadable(error) from error

    def _begins(self) -> bool:
        """Whether another frame follows; reads its y4m line."""
        start = _read(self._file, len(FRAME_MAGIC))
        if not start:
            return False
        if start != FRAME_MAGIC:
            if len(start) < len(FRAME_MAGIC):
                raise self._cut(len(start), None)
            raise InputError(
                f"{{path}} has no frame where frame {self._count + 1} should begin",
                remedy="check that the program before this one writes only y4m",
                path=STANDARD_INPUT,
            )
        _line(self._file, f"line of frame {self._count + 1}")
        return True

    def _filled(self) -> VideoFrame | None:
        frame = self.form.new_frame()
        planes = planes_of(frame)
        size = sum(plane.size for plane in planes)
        got = 0
        for plane in planes:
            data = _read(self._file, plane.size, self._start)
            self._start = self._start[plane.size :]
            got += len(data)
            if len(data) < plane.size:
                break
            plane[:] = memoryview(data).cast("B", plane.shape)
        if not got and not self.form.is_framed:
            return None
        if got < size:
            raise self._cut(got, size)
        self._count += 1
        return frame

    def _cut(self, got: int, size: int | None) -> InputError:
        told = f"{got} bytes" if size is None else f"{got} of {size} bytes"
        return InputError(
            f"{{path}} ends within frame {self._count + 1} ({told})",
            remedy="the program before this one was stopped, or its frames have another size or "
            "pixel format",
            path=STANDARD_INPUT,
        )


def _read(file: FileIO, size: int, start: bytes = b"") -> bytearray:
    """``size`` bytes, fewer only at the end; ``start`` was read already."""
    data = bytearray(size)
    got = min(len(start), size)
    data[:got] = start[:got]
    view = memoryview(data)
    while got < size:
        _wait_for(file)
        more = file.readinto(view[got:])
        if not more:
            break
        got += more
    view.release()
    del data[got:]
    return data


def _wait_for(file: FileIO) -> None:
    """Wait for something to read, or the end, so that a thread that reads can be stopped. Windows
    cannot wait for a pipe this way."""
    if sys.platform != "win32":
        while not select.select([file], [], [], LOOK_SECONDS)[0]:
            check_stopped()


def _line(file: FileIO, what: str) -> bytes:
    """The rest of a line, byte by byte, since nothing after it may be read."""
    line = bytearray()
    while len(line) < LONGEST_LINE:
        byte = _read(file, 1)
        if not byte:
            break
        if byte == b"\n":
            return bytes(line)
        line += byte
    raise InputError(
        "{path}: the {value} is cut off, or longer than y4m allows",
        remedy="write it again, for example with ffmpeg's -f yuv4mpegpipe",
        path=STANDARD_INPUT,
        value=what,
    )


def _unreadable(error: OSError) -> InputError:
    return InputError("{path} cannot be read: {value}", path=STANDARD_INPUT, value=reason(error))


def binary(descriptor: int) -> None:
    """Leave line endings as they are; Windows would otherwise change them."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(descriptor, os.O_BINARY)
