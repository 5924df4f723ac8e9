"""Where a result is written: checked before any work, and moved into place whole at the very end.

No target is ever a file being read; what killed runs left beside a target is removed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av

from dloral.errors import InputError, OptionError, OutputError, Setting
from dloral.video.carried import PIPED
from dloral.video.encoders import CONTAINERS
from dloral.video.images import WRITABLE_SUFFIXES, frame_files, is_marked
from dloral.video.media import MAX_OUTPUT_PIXELS, MAX_SIDE, reason, seconds
from dloral.video.parts import FRAME_NAME, Part, remove_frames
from dloral.video.probe import ClipInfo

_MOST_SIDE = {".webp": 16383}
"""Pixels, where a file holds less than MAX_SIDE. (JPEG holds 65500, GIF 65535.)"""

_MARGIN = 128
"""Pixels that FFmpeg adds to both sides when it counts those of a frame (av_image_check_size2)."""

_PART_NAME = re.compile(r"^\..*\.[0-9a-f]{8}\.(part|old)$")
"""New frames on their way into a folder, and the old ones on their way out."""


def checked_target(target: str | Path, source: ClipInfo, overwrite: bool) -> tuple[Path, str]:
    """The target and its suffix (empty for a folder); OptionError or OutputError if unusable."""
    text = os.fspath(target)
    if not text or "\0" in text:
        raise OptionError(f"{text!r} is not a file name; give a file to write")
    path = Path(text)
    try:
        exists_as_folder = path.is_dir()
    except OSError as error:  # a folder above it cannot be entered
        raise output_error(path, error) from error
    is_folder = exists_as_folder or text.endswith(("/", os.sep)) or not path.suffix
    suffix = "" if is_folder else path.suffix.lower()
    if suffix and suffix not in CONTAINERS and suffix not in WRITABLE_SUFFIXES:
        raise OptionError(
            "{path}: {value} is not written",
            remedy="give {containers}, {pictures}, or a folder for PNG frames",
            path=path,
            value=suffix,
            containers=", ".join(CONTAINERS),
            pictures=", ".join(WRITABLE_SUFFIXES),
        )
    try:
        if not path.absolute().parent.is_dir():
            raise OutputError(
                "{path} cannot be written: {folder} is not a directory",
                path=path,
                folder=path.parent,
            )
        if path.exists():
            _check_existing(path, source, overwrite, is_folder)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise output_error(path, error) from error
    return path, suffix


def _check_existing(path: Path, source: ClipInfo, overwrite: bool, is_folder: bool) -> None:
    if source.kind != "pipe":
        if path.samefile(source.path):
            raise OptionError(
                "{path} is the source itself", remedy="write to another name", path=path
            )
        _check_spares_the_source(path, source, is_folder)
    if is_folder and path.is_file():
        raise OutputError("{path} is a file, not a folder", remedy="give another name", path=path)
    if not path.is_dir() and not path.is_file():
        raise OutputError(
            "{path} is a device or a pipe",
            remedy="give the name of a file, or - for standard output",
            path=path,
        )
    if not overwrite and not (is_folder and not any(path.iterdir())):
        raise OutputError(
            "{path} exists already", remedy="give another name or allow overwriting", path=path
        )
    if is_folder:
        for file in path.iterdir():
            if not (_is_our_frame(file) or _is_our_part(file)):
                raise OutputError(
                    "{path} holds other files ({value})",
                    remedy="give a new or an empty folder",
                    path=path,
                    value=file.name,
                )


def _check_spares_the_source(path: Path, source: ClipInfo, is_folder: bool) -> None:
    """OptionError if the target, or a file in a target folder, is a file being read."""
    read = frame_files(source.path) if source.kind == "folder" else [source.path]
    files = {_identity(file) for file in read}
    for file in path.iterdir() if is_folder and path.is_dir() else [path]:
        # a missing file or broken link is not being read either
        with contextlib.suppress(FileNotFoundError):
            if _identity(file) in files:
                raise OptionError(
                    "{path} is part of the source", remedy="write to another name", path=file
                )


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


def _is_our_frame(file: Path) -> bool:
    try:
        return bool(FRAME_NAME.match(file.name)) and file.is_file() and is_marked(file)
    except InputError:  # empty or unreadable
        return False


def _is_our_part(folder: Path) -> bool:
    """Whether this is what a killed job left in its target folder."""
    if not _PART_NAME.match(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    return all(FRAME_NAME.match(file.name) for file in folder.iterdir())


def check_output_size(path: Path, width: int, height: int, suffix: str) -> None:
    """OptionError if a target of this suffix (empty for a folder, PIPED for a pipe) does not hold
    frames this large, or this small. A codec may take less (:func:`encoders.check_choices`)."""
    side = _MOST_SIDE.get(suffix, MAX_SIDE)
    most = f"{side} pixels a side"
    fits = 0 < width <= side and 0 < height <= side
    if fits and suffix in (PIPED, ".exr", *CONTAINERS):
        lines = (MAX_OUTPUT_PIXELS - 1) // (width + _MARGIN) - _MARGIN
        most, fits = f"{lines} lines of this width", height <= lines
    if not fits:
        raise OptionError(
            "{path} would be {value}; at most {most} can be written{there}",
            remedy="choose a smaller {scale}",
            path=path,
            value=f"{width}x{height}",
            most=most,
            there=f" to {suffix}" if suffix in _MOST_SIDE else "",
            scale=Setting("scale"),
        )


def output_error(path: Path, error: BaseException, kept: Path | None = None) -> OutputError:
    """``kept``: where the finished result is, if only moving it into place failed."""
    where = "; the result is in {kept}" if kept else ""
    told = reason(error)
    if isinstance(error, av.error.ExternalError):  # encoders say no more
        told = "its encoder failed, as happens when memory is short"
    elif isinstance(error, FileNotFoundError) and path.absolute().parent.is_dir():
        told = "its folder takes no files"  # as /proc
    return OutputError(
        f"{{path}} cannot be written: {{value}}{where}", path=path, value=told, kept=kept
    )


def left_notes(part: Part) -> list[str]:
    """What a killed job left and could not be removed, a line each."""
    return [f"{name} was left by a killed job and cannot be removed" for name in part.left]


def frame_names(source: ClipInfo, keep: bool, start: Fraction | float) -> Iterator[str]:
    """Names of a folder's frames: the source's if they fit, else numbers."""
    files = frame_files(source.path) if source.kind == "folder" and keep else []
    names = [f"{file.stem}.png" for file in files]
    if names and len({name.lower() for name in names}) == len(names):
        first = math.ceil(seconds(start) * source.fps)
        yield from names[first:]
        return
    for index in itertools.count():
        yield f"{index:08d}.png"


@contextmanager
def beside(path: Path, suffix: str) -> Iterator[Part]:
    """A new file next to ``path`` that replaces it in the end, or disappears without trace."""
    try:
        made = Part(path, path.absolute().parent, suffix)
    except OSError as error:
        raise output_error(path, error) from error
    part, kept = made.path, False
    try:
        yield made
        try:
            part.replace(path)
        except OSError as error:  # the target is a mount point, or has become a folder
            kept = True
            raise output_error(path, error, part) from error
    finally:
        if not kept:
            with contextlib.suppress(OSError):  # no reason to hide how the job itself went
                part.unlink(missing_ok=True)
        made.close()


def move_in(part: Path, path: Path) -> None:
    """Move the finished frames of ``part`` into ``path``, which holds it, replacing its old frames.

    If one cannot be moved, all go back to where they were, and OSError is raised.
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
    remove_frames(old)
