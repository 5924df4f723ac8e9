"""Restored frames to a video, a picture or a folder of PNG frames: whole, or not at all.

Everything is written beside the target under a name of its own (in the target, where that is a
folder) and put in the target's place at the very end. On an error or a cancelled job that is
removed, and whatever stood in the target's place before stays as it was. Only where everything is
finished and then cannot be put in its place is it kept, and the error says where.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol, cast

import av
from av import Packet
from av.codec.context import Flags as CodecFlags
from av.container import OutputContainer
from av.video.stream import VideoStream
from torch import Tensor

from dloral.errors import InputError, OptionError, OutputError
from dloral.video.colour import BT709, BT2020, FULL, LIMITED, RGB, rgb_to_frame
from dloral.video.encoders import CONTAINERS, Encoder, choose_encoder
from dloral.video.images import (
    WRITABLE_SUFFIXES,
    encode_image,
    encode_marked_png,
    frame_files,
    is_marked,
)
from dloral.video.media import MAX_OUTPUT_PIXELS, MAX_SIDE, reason, seconds
from dloral.video.probe import ClipInfo
from dloral.video.tracks import Tracks

_FRAME_NAME = re.compile(r"^\d{8}\.png$")
_PART_NAME = re.compile(r"^\..*\.[0-9a-f]{8}\.(part|old)$")
"""New frames on their way into a folder, and the old ones on their way out."""

_FINEST_UNIT = 1_000_000
"""Ticks a second beyond which a source's clock is rounded to MPEG's 90 kHz."""


class Writer(Protocol):
    """Takes frames in order. ``notes``: what could not be kept as it was, one line each."""

    notes: list[str]

    def write(self, pixels: Tensor, time: Fraction, duration: Fraction) -> None:
        """One frame: float (3,H,W) in [0, 1]; ``time`` on the source clip's clock, in seconds.

        The first frame's time becomes 0 of the result.
        """
        ...


def open_writer(
    target: str | Path,
    *,
    width: int,
    height: int,
    source: ClipInfo,
    codec: str = "h264",
    crf: int | None = None,
    bit_depth: int = 8,
    start: Fraction | float = 0,
    duration: Fraction | float | None = None,
    overwrite: bool = True,
) -> contextlib.AbstractContextManager[Writer]:
    """A place to write the restored frames of ``source`` to, in a ``with`` block.

    ``target``: .mp4, .mkv, .mov, .webm; .png, .jpg, .webp for a single picture; a folder (no
    suffix, a trailing slash, or an existing folder) for 00000000.png, 00000001.png, ... (16 bits a
    channel when ``bit_depth`` is 10). ``start``, ``duration``: which seconds of the source the
    frames come from, so that sound and subtitles are cut alike.

    An existing folder is filled only if it is empty or holds nothing but frames that this writer
    once wrote (they carry a mark, and go when the new ones are there); otherwise OutputError.
    OptionError for a wrong choice, such as a frame of the source; both raised here, before any
    work. OutputError in the block when the disk is full and the like.
    """
    path, suffix = _checked_target(target, source, overwrite)
    _check_size(path, width, height)
    if suffix in CONTAINERS:
        encoder = choose_encoder(codec, suffix, bit_depth, crf)
        first = seconds(start)
        end = None if duration is None else first + seconds(duration)
        settings = _VideoSettings(encoder, suffix, width, height, crf, bit_depth, end)
        return _write_video(path, source, settings)
    if suffix:
        if source.num_frames != 1:
            raise OptionError(
                f"{path.name} holds one picture, the source has more; "
                "give .mp4, .mkv, .mov or .webm, or a folder for frames"
            )
        return _write_picture(path, suffix, source, bit_depth)
    return _write_folder(path, source, bit_depth)


@dataclass(frozen=True)
class _VideoSettings:
    encoder: Encoder
    suffix: str
    width: int
    height: int
    crf: int | None
    bit_depth: int
    end: Fraction | None  # seconds from the source's first frame


def _checked_target(target: str | Path, source: ClipInfo, overwrite: bool) -> tuple[Path, str]:
    """The target and its suffix (empty for a folder); OptionError or OutputError if unusable."""
    text = os.fspath(target)
    if not text or "\0" in text:
        raise OptionError(f"{text!r} is not a file name; give a file to write")
    path = Path(text)
    try:
        exists_as_folder = path.is_dir()
    except OSError as error:  # a folder above it may not be entered
        raise _output_error(path, error) from error
    is_folder = exists_as_folder or text.endswith(("/", os.sep)) or not path.suffix
    suffix = "" if is_folder else path.suffix.lower()
    if suffix and suffix not in CONTAINERS and suffix not in WRITABLE_SUFFIXES:
        raise OptionError(
            f"{path.name}: {suffix} is not written; give {', '.join(CONTAINERS)}, "
            f"{', '.join(WRITABLE_SUFFIXES)}, or a folder for PNG frames"
        )
    try:
        if not path.absolute().parent.is_dir():
            raise OutputError(f"{path} cannot be written: there is not a directory {path.parent}")
        if path.exists():
            _check_existing(path, source, overwrite, is_folder)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise _output_error(path, error) from error
    return path, suffix


def _check_existing(path: Path, source: ClipInfo, overwrite: bool, is_folder: bool) -> None:
    if path.samefile(source.path):
        raise OptionError(f"{path} is the source itself; write to another name")
    _check_spares_the_source(path, source, is_folder)
    if is_folder and not path.is_dir():
        raise OutputError(f"{path} is a file, not a folder; give another name")
    if not is_folder and not path.is_file():
        raise OutputError(f"{path} is a device or a pipe; give the name of a file")
    if not overwrite and not (is_folder and not any(path.iterdir())):
        raise OutputError(f"{path} exists already; give another name or allow overwriting")
    if is_folder:
        for file in path.iterdir():
            if not (_is_our_frame(file) or _is_our_part(file)):
                raise OutputError(
                    f"{path} holds other files ({file.name}); give a new or an empty folder"
                )


def _check_spares_the_source(path: Path, source: ClipInfo, is_folder: bool) -> None:
    """OptionError if the target, or a file of a target folder, is a file that is read."""
    read = frame_files(source.path) if source.kind == "folder" else [source.path]
    files = {_identity(file) for file in read}
    for file in path.iterdir() if is_folder and path.is_dir() else [path]:
        # what is gone or leads nowhere is not read either
        with contextlib.suppress(FileNotFoundError):
            if _identity(file) in files:
                raise OptionError(f"{file} is part of the source; write to another name")


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


def _is_our_frame(file: Path) -> bool:
    try:
        return bool(_FRAME_NAME.match(file.name)) and file.is_file() and is_marked(file)
    except InputError:  # empty, or not to be read
        return False


def _is_our_part(folder: Path) -> bool:
    """Whether this is what a job that was killed left in its target folder."""
    if not _PART_NAME.match(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    return all(_FRAME_NAME.match(file.name) for file in folder.iterdir())


def _check_size(path: Path, width: int, height: int) -> None:
    too_large = max(width, height) > MAX_SIDE or width * height > MAX_OUTPUT_PIXELS
    if width < 1 or height < 1 or too_large:
        raise OptionError(
            f"{path.name} would be {width}x{height}; at most {MAX_SIDE} pixels a side can be "
            "written; choose a smaller scale"
        )


def _output_error(path: Path, error: BaseException, kept: Path | None = None) -> OutputError:
    """``kept``: where the finished result is, if only putting it in its place failed."""
    where = f"; the result is in {kept}" if kept else ""
    return OutputError(f"{path} cannot be written: {reason(error)}{where}")


@contextmanager
def _beside(path: Path, suffix: str) -> Iterator[Path]:
    """A new file next to ``path`` that takes its place in the end, or goes without a trace."""
    part = path.absolute().parent / f".{path.stem[:80]}.{secrets.token_hex(4)}.part{suffix}"
    try:
        # made at once, so that a folder without permission is found before the work
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _output_error(path, error) from error
    kept = False
    try:
        yield part
        try:
            part.replace(path)
        except OSError as error:  # the target is a mount point, or has become a folder
            kept = True
            raise _output_error(path, error, part) from error
    finally:
        if not kept:
            with contextlib.suppress(OSError):  # no reason to hide how the job itself went
                part.unlink(missing_ok=True)


@contextmanager
def _write_video(path: Path, source: ClipInfo, settings: _VideoSettings) -> Iterator[Writer]:
    options = {"movflags": "+faststart"} if settings.suffix in (".mp4", ".mov") else {}
    with _beside(path, settings.suffix) as part:
        try:
            container = av.open(
                str(part), "w", format=CONTAINERS[settings.suffix], container_options=options
            )
            notes: list[str] = []
            try:
                with Tracks(source, container, settings.suffix, notes) as tracks:
                    writer = _VideoWriter(container, tracks, source, settings, notes)
                    yield writer
                    writer.finish()
            except BaseException:
                # The file is thrown away, so what closing it says does not matter any more.
                with contextlib.suppress(av.FFmpegError, OSError):
                    container.close()
                raise
            container.close()
        except av.FFmpegError as error:
            raise _output_error(path, error) from error


class _VideoWriter:
    """Encodes the picture and lets the other tracks keep step with it."""

    def __init__(
        self,
        container: OutputContainer,
        tracks: Tracks,
        source: ClipInfo,
        settings: _VideoSettings,
        notes: list[str],
    ) -> None:
        self.notes = notes
        self._container = container
        self._tracks = tracks
        self._settings = settings
        self._origin: Fraction | None = None
        self._last_pts = -1
        self._durations: dict[int | None, int] = {}  # of frames inside the encoder, by pts
        self._end = Fraction(0)
        encoder = settings.encoder
        size = settings.width, settings.height
        self._format = encoder.pixel_format(*size, settings.bit_depth)
        if self._format != encoder.formats[settings.bit_depth]:
            notes.append(
                f"{size[0]}x{size[1]} is odd: written as {self._format}, which some players lack"
            )
        self._unit = _time_unit(source)
        self._matrix = BT2020 if source.color_space == BT2020 else BT709
        self._stream = cast(VideoStream, container.add_stream(encoder.library, rate=source.fps))
        self._set_up(source)

    def _set_up(self, source: ClipInfo) -> None:
        settings, context = self._settings, self._stream.codec_context
        encoder = settings.encoder
        context.width, context.height = settings.width, settings.height
        context.pix_fmt = self._format
        context.time_base = self._unit
        context.flags |= CodecFlags.frame_duration  # else the last frame's duration is lost
        context.sample_aspect_ratio = source.sample_aspect_ratio
        is_rgb = self._format.startswith(("bgr", "gbr"))
        context.colorspace = RGB if is_rgb else self._matrix
        context.color_range = FULL if is_rgb else LIMITED
        # Primaries and transfer are not converted, so the source's own are said of the result.
        context.color_primaries = source.color_primaries or self._matrix
        context.color_trc = source.color_transfer or BT709
        options = dict(encoder.options)
        if encoder.default_crf is not None:
            crf = encoder.default_crf if settings.crf is None else settings.crf
            options["crf"] = str(crf)
        context.options = options
        if encoder.tag and settings.suffix != ".mkv":
            context.codec_tag = encoder.tag

    def write(self, pixels: Tensor, time: Fraction, duration: Fraction) -> None:
        expected = (3, self._settings.height, self._settings.width)
        assert tuple(pixels.shape) == expected, f"frame of {tuple(pixels.shape)}, not {expected}"
        if self._origin is None:
            self._origin = Fraction(time)
            self._tracks.begin(self._origin, self._settings.end)
        frame = rgb_to_frame(pixels, self._format, self._matrix)
        context = self._stream.codec_context
        frame.colorspace, frame.color_range = context.colorspace, context.color_range
        frame.color_primaries, frame.color_trc = context.color_primaries, context.color_trc
        frame.time_base = self._unit
        frame.pts = max(round((time - self._origin) / self._unit), self._last_pts + 1)
        frame.duration = max(round(Fraction(duration) / self._unit), 1)
        self._durations[frame.pts] = frame.duration
        self._last_pts = frame.pts
        self._end = time - self._origin + duration
        self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        if self._origin is None:
            raise OutputError("no frame came to be written; choose a part that has frames")
        self._mux(self._stream.encode(None))
        self._tracks.finish(self._end)

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            # Encoders give the last packet the length of the one before, or none.
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._tracks.mux_until((packet.dts or 0) * Fraction(packet.time_base))
            packet.stream = self._stream
            self._container.mux(packet)


def _time_unit(source: ClipInfo) -> Fraction:
    """A tick in which all of the source's times are whole numbers."""
    ticks = source.time_base.denominator
    return Fraction(1, ticks if ticks <= _FINEST_UNIT else 90_000)


@contextmanager
def _write_picture(path: Path, suffix: str, source: ClipInfo, bit_depth: int) -> Iterator[Writer]:
    with _beside(path, suffix) as part:
        writer = _PictureWriter(part, path, suffix, bit_depth)
        if source.has_audio:
            writer.notes.append("a picture keeps no sound")
        yield writer
        if not writer.written:
            raise OutputError("no frame came to be written; choose a part that has frames")


class _PictureWriter:
    def __init__(self, part: Path, path: Path, suffix: str, bit_depth: int) -> None:
        self.notes: list[str] = []
        self.written = False
        self._part, self._path = part, path
        self._suffix, self._bit_depth = suffix, bit_depth

    def write(self, pixels: Tensor, time: Fraction, duration: Fraction) -> None:
        assert not self.written, "a picture holds one frame"
        try:
            self._part.write_bytes(encode_image(pixels, self._suffix, self._bit_depth))
        except OSError as error:
            raise _output_error(self._path, error) from error
        self.written = True


@contextmanager
def _write_folder(path: Path, source: ClipInfo, bit_depth: int) -> Iterator[Writer]:
    path = path.resolve()
    # A folder that is there may be a mount point or somebody's working directory, which no other
    # folder can take the place of: it is filled from within.
    folder = path if path.is_dir() else path.parent
    part = folder / f".{path.name[:80]}.{secrets.token_hex(4)}.part"
    try:
        part.mkdir()
    except OSError as error:
        raise _output_error(path, error) from error
    kept = False
    try:
        writer = _FolderWriter(part, path, bit_depth)
        if source.has_audio:
            writer.notes.append("a folder of frames keeps no sound")
        yield writer
        if not writer.count:
            raise OutputError("no frame came to be written; choose a part that has frames")
        try:
            if folder == path:
                _move_in(part, path)
            else:
                part.rename(path)
        except OSError as error:
            kept = True
            raise _output_error(path, error, part) from error
    finally:
        if not kept:
            _remove_frames(part)


class _FolderWriter:
    def __init__(self, part: Path, path: Path, bit_depth: int) -> None:
        self.notes: list[str] = []
        self.count = 0
        self._part, self._path, self._bit_depth = part, path, bit_depth

    def write(self, pixels: Tensor, time: Fraction, duration: Fraction) -> None:
        try:
            file = self._part / f"{self.count:08d}.png"
            file.write_bytes(encode_marked_png(pixels, self._bit_depth))
        except OSError as error:
            raise _output_error(self._path, error) from error
        self.count += 1


def _move_in(part: Path, path: Path) -> None:
    """Move the finished frames of ``part`` to ``path`` around it, in exchange for its old frames.

    Where one cannot be moved, all go back to where they were. OSError for that.
    """
    old = part.with_suffix(".old")
    moved: list[tuple[Path, Path]] = []
    old.mkdir()
    try:
        frames = [(file, old / file.name) for file in path.iterdir() if _is_our_frame(file)]
        frames += [(file, path / file.name) for file in part.iterdir()]
        for file, place in frames:
            if os.path.lexists(place):  # put there by somebody else since the job began
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            moved.append((file, place))
            file.rename(place)
    except BaseException:
        for file, place in reversed(moved):
            with contextlib.suppress(OSError):
                place.rename(file)
        with contextlib.suppress(OSError):
            old.rmdir()
        raise
    _remove_frames(old)


def _remove_frames(folder: Path) -> None:
    """Delete a folder of our own frames; anything else in it stays, and the folder with it."""
    # What cannot be deleted is no reason to hide how the job itself went.
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            if _FRAME_NAME.match(file.name):
                file.unlink()
        folder.rmdir()
