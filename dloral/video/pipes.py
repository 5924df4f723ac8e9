"""Frames from standard input and to standard output, one at a time.

Nothing seeks: a pipe is read once, from its start, and one frame of it is held. Only the frames are
written, with nothing else that this process prints among them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from io import FileIO
from pathlib import Path

from torch import Tensor

from dloral.errors import OptionError, OutputError, Setting
from dloral.video.carried import PIPED, carried_notes
from dloral.video.colour import matrix_of, rgb_to_frame
from dloral.video.encoding import CodedFrame, OutputFormat
from dloral.video.filters import FRAME, OFF
from dloral.video.media import check_size, reason
from dloral.video.pipe_formats import (
    FRAME_MAGIC,
    Y4M,
    PipeFormat,
    planes_of,
    raw_format,
    y4m_header,
)
from dloral.video.pipe_stream import STANDARD_INPUT, binary, open_stream
from dloral.video.probe import ClipInfo

PIPE = "-"
"""What a user gives for standard input or output; a file of that name is ``./-``."""

STANDARD_OUTPUT = Path("standard output")
"""What messages call it."""


def is_pipe(name: object) -> bool:
    """Whether a source or target is standard input or output: only the string is, since
    ``Path("./-")`` is a file."""
    return name == PIPE


def probe_input(
    size: tuple[int, int] | None = None,
    pixel_format: str | None = None,
    fps: Fraction | None = None,
) -> ClipInfo:
    """What comes on standard input: y4m, or raw video where its width and height are given.

    The frames can be read once. ``num_frames`` and ``duration`` are not known. Raises OptionError
    for raw video that is only partly described, InputError for anything that is neither.
    """
    told = raw_format(size, pixel_format, fps)
    stream = open_stream(told, fps)
    form = stream.form
    check_size(STANDARD_INPUT, form.height, form.width)
    frame = form.new_frame()
    return ClipInfo(
        path=STANDARD_INPUT,
        kind="pipe",
        width=form.width,
        height=form.height,
        num_frames=None,
        duration=None,
        fps=form.fps,
        codec="rawvideo",
        pixel_format=form.pixel_format,
        bit_depth=max(part.bits for part in frame.format.components),
        sample_aspect_ratio=form.aspect,
        color_range=form.color_range,
        time_base=1 / form.fps,
        field_order=form.field_order,
        has_alpha=form.has_alpha,
        deinterlace=FRAME if form.field_order else OFF,
        stream=stream,
    )


def check_pipe_choices(encoding: dict[str, object], chosen: OutputFormat) -> None:
    """OptionError, before the work, for encoder options, as there is no encoder, and for sizes that
    do not suit the chroma format."""
    pipe_pixels(chosen)
    for name, value in encoding.items():
        if value not in (None, ()):
            raise OptionError(
                "{option} is given, but frames on standard output are not encoded",
                remedy="leave it out, and encode with the program that reads them",
                option=Setting(name),
            )


@contextmanager
def write_output(source: ClipInfo, chosen: OutputFormat, format_name: str) -> Iterator[PipeWriter]:
    """A place on standard output for the restored frames of ``source``, as y4m or rawvideo.

    Until the block ends, whatever else is printed there goes to standard error. OutputError, in
    the block, when the reader goes away.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        raise OutputError(
            "{path} is a terminal",
            remedy="send it to a program, for example | ffmpeg -i - out.mkv",
            path=STANDARD_OUTPUT,
        )
    with _claimed_output() as file:
        writer = PipeWriter(file, source, chosen, format_name)
        yield writer
        writer.finish()


@contextmanager
def _claimed_output() -> Iterator[FileIO]:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    own = os.dup(1)
    binary(own)
    with suppress(OSError):
        os.dup2(2, 1)
    try:
        with FileIO(own, "w", closefd=False) as file:
            yield file
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os.dup2(own, 1)
        os.close(own)


class PipeWriter:
    """A writer (:class:`dloral.video.writer.Writer`) of uncompressed frames at a constant rate."""

    def __init__(
        self, file: FileIO, source: ClipInfo, chosen: OutputFormat, format_name: str
    ) -> None:
        self.notes: list[str] = []
        self.chosen = chosen
        self._file, self._source = file, source
        self._is_y4m = format_name == Y4M
        self._count = 0
        self._origin: Fraction | None = None
        self._is_steady = True
        width, height = chosen.width, chosen.height
        self._format = PipeFormat(
            width, height, pipe_pixels(chosen), source.fps, source.sample_aspect_ratio
        )
        # Frames in a pipe do not carry their matrix, so use the one that a reader will guess.
        self._matrix = matrix_of(self._format.new_frame())
        self.notes += carried_notes(source, PIPED)

    def write(self, pixels: Tensor, time: Fraction, duration: Fraction) -> None:
        if self._origin is None:
            self._origin = time
            if self._is_y4m:
                self._put(y4m_header(self._format))
        expected = self._origin + self._count / self._source.fps
        self._is_steady &= abs(time - expected) * self._source.fps <= Fraction(1, 2)
        if self._is_y4m:
            self._put(FRAME_MAGIC + b"\n")
        for plane in planes_of(rgb_to_frame(pixels, self._format.pixel_format, self._matrix)):
            self._put(plane.tobytes())
        self._count += 1

    def write_coded(
        self, coded: Iterable[CodedFrame], origin: Fraction, end: Fraction | None = None
    ) -> None:
        raise AssertionError("a job into a pipe keeps no segments")

    def cut_short(self) -> None:
        """Nothing to do: a pipe carries nothing else that would have to end with the frames."""

    def finish(self) -> None:
        """OutputError if no frame came."""
        if not self._count:
            raise OutputError("no frames were written; choose a part that has frames")
        if not self._is_steady:
            rate = float(self._source.fps)
            self.notes.append(f"the source's rate varies; a pipe has a constant one, {rate:.4g}")

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except BrokenPipeError as error:
            raise OutputError(
                f"{{path}} was closed by its reader at frame {self._count + 1}",
                remedy="check the output of the program after this one",
                path=STANDARD_OUTPUT,
            ) from error
        except OSError as error:
            raise OutputError(
                "{path} cannot be written: {value}", path=STANDARD_OUTPUT, value=reason(error)
            ) from error


def pipe_pixels(chosen: OutputFormat) -> str:
    """4:2:0 if both sides are even, else 4:4:4, or as asked for; OptionError if that cannot
    be."""
    even = chosen.width % 2 == 0 and chosen.height % 2 == 0
    chroma = ("420" if even else "444") if chosen.chroma == "auto" else chosen.chroma
    if (chroma != "444" and chosen.width % 2) or (chroma == "420" and chosen.height % 2):
        raise OptionError(
            f"{chosen.width}x{chosen.height} is odd, and {{option}} needs pairs of pixels",
            remedy="choose 444 or auto",
            option=Setting("chroma", chroma),
        )
    return f"yuv{chroma}p" + ("10le" if chosen.bit_depth == 10 else "")
