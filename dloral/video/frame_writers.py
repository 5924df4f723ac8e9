"""Writers of frames as pictures, in files of their own or all in one; what all writers share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from dloral.errors import OutputError
from dloral.stages import WRITE, stage
from dloral.video.animations import Animation, Canvas, open_animation
from dloral.video.carried import carried_notes
from dloral.video.encoding import SEGMENT_FRAMES, CodedFrame, FrameEncoder, OutputFormat, time_unit
from dloral.video.parts import Part, remove_frames
from dloral.video.probe import ClipInfo
from dloral.video.targets import beside, left_notes, move_in, output_error


class FrameWriter:
    """What writers share: the encoder of the segment under way."""

    def __init__(self, source: ClipInfo, chosen: OutputFormat) -> None:
        self.notes: list[str] = []
        self.chosen = chosen
        self._source = source
        self._encoder: FrameEncoder | None = None
        self._in_segment = 0
        self._origin: Fraction | None = None
        self._is_short = False

    def cut_short(self) -> None:
        self._is_short = True

    def write(self, pixels: Tensor, time: Fraction, duration: Fraction) -> None:
        if self._origin is None:
            self._begin(Fraction(time))
        assert self._origin is not None
        if self._encoder is None:
            self._encoder = self.chosen.new_encoder(self._source, self._origin)
        self._put_all(self._encoder.encode(pixels, time, duration))
        self._in_segment += 1
        self._end = time - self._origin + duration
        if self._in_segment == SEGMENT_FRAMES:
            self._end_segment()

    def write_coded(
        self, coded: Iterable[CodedFrame], origin: Fraction, end: Fraction | None = None
    ) -> None:
        if self._origin is None:
            self._begin(origin)
        self._put_all(coded)
        if end is not None:
            self._end = end

    def _begin(self, origin: Fraction) -> None:
        self._origin = origin

    def _end_segment(self) -> None:
        if self._encoder is not None:
            self._put_all(self._encoder.finish())
        self._encoder, self._in_segment = None, 0

    def finish(self) -> None:
        """Flush the encoder; OutputError if no frame was written."""
        if self._origin is None:
            raise OutputError("no frames were written; choose a part that has frames")
        with stage(WRITE):
            self._end_segment()

    def _put_all(self, coded: Iterable[CodedFrame]) -> None:
        for frame in coded:
            self._put(frame)

    def _put(self, coded: CodedFrame) -> None:
        raise NotImplementedError


@contextmanager
def write_picture(
    path: Path, source: ClipInfo, chosen: OutputFormat, audio: str
) -> Iterator[FrameWriter]:
    with beside(path, chosen.suffix) as part:
        writer = _PictureWriter(part.path, path, source, chosen)
        writer.notes += [*left_notes(part), *carried_notes(source, chosen.suffix, audio)]
        yield writer
        writer.finish()


class _PictureWriter(FrameWriter):
    def __init__(self, part: Path, path: Path, source: ClipInfo, chosen: OutputFormat) -> None:
        super().__init__(source, chosen)
        self._written = False
        self._part, self._path = part, path

    def _put(self, coded: CodedFrame) -> None:
        assert not self._written, "a picture holds one frame"
        try:
            self._part.write_bytes(coded.data)
        except OSError as error:
            raise output_error(self._path, error) from error
        self._written = True


@contextmanager
def write_animation(
    path: Path, source: ClipInfo, chosen: OutputFormat, audio: str
) -> Iterator[FrameWriter]:
    plays = 0 if source.plays is None else source.plays
    canvas = Canvas(chosen.width, chosen.height, chosen.alpha, plays)
    with (
        beside(path, chosen.suffix) as part,
        open_animation(part.path, chosen.suffix, canvas) as file,
    ):
        writer = _AnimationWriter(file, path, source, chosen)
        writer.notes += [*left_notes(part), *carried_notes(source, chosen.suffix, audio)]
        yield writer
        writer.finish()


class _AnimationWriter(FrameWriter):
    def __init__(self, file: Animation, path: Path, source: ClipInfo, chosen: OutputFormat) -> None:
        super().__init__(source, chosen)
        self._file, self._path, self._unit = file, path, time_unit(source)

    def _put(self, coded: CodedFrame) -> None:
        begin, end = coded.pts * self._unit, (coded.pts + coded.duration) * self._unit
        with self._writing():
            self._file.add(coded.data, begin, end)

    def finish(self) -> None:
        super().finish()
        with self._writing():
            self._file.finish()
        if count := self._file.left_out:
            frames = "1 frame" if count == 1 else f"{count} frames"
            self.notes.append(f"{frames} left out: a GIF shows no more than 50 a second")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OutputError:
            raise
        except OSError as error:
            raise output_error(self._path, error) from error


@contextmanager
def write_folder(
    path: Path, source: ClipInfo, chosen: OutputFormat, audio: str, names: Iterator[str]
) -> Iterator[FrameWriter]:
    path = path.resolve()
    # An existing folder may be a mount point or somebody's working directory, which cannot be
    # replaced by another folder: it is filled from within.
    folder = path if path.is_dir() else path.parent
    try:
        made = Part(path, folder, is_folder=True)
    except OSError as error:
        raise output_error(path, error) from error
    part, kept = made.path, False
    try:
        writer = _FolderWriter(part, path, source, chosen, names)
        writer.notes += [*left_notes(made), *carried_notes(source, chosen.suffix, audio)]
        yield writer
        writer.finish()
        try:
            if folder == path:
                move_in(part, path)
            else:
                part.rename(path)
        except OSError as error:
            kept = True
            raise output_error(path, error, part) from error
    finally:
        if not kept:
            remove_frames(part)
        made.close()


class _FolderWriter(FrameWriter):
    def __init__(
        self, part: Path, path: Path, source: ClipInfo, chosen: OutputFormat, names: Iterator[str]
    ) -> None:
        super().__init__(source, chosen)
        self._names = names
        self._part, self._path = part, path

    def _put(self, coded: CodedFrame) -> None:
        try:
            (self._part / next(self._names)).write_bytes(coded.data)
        except OSError as error:
            raise output_error(self._path, error) from error
