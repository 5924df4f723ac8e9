"""Where a result is written: checked before any work, and put in its place whole at the very end.

No target is ever a file that is read; what killed runs left beside a target is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dloral.errors import InputError, OptionError, OutputError
from dloral.video.encoders import CONTAINERS
from dloral.video.images import WRITABLE_SUFFIXES, frame_files, is_marked
from dloral.video.media import MAX_OUTPUT_PIXELS, MAX_SIDE, reason
from dloral.video.parts import FRAME_NAME, Part, remove_frames
from dloral.video.probe import ClipInfo

_PART_NAME = re.compile(r"^\..*\.[0-9a-f]{8}\.(part|old)$")
"""New frames on their way into a folder, and the old ones on their way out."""


def checked_target(target: str | Path, source: ClipInfo, overwrite: bool) -> tuple[Path, str]:
    """The target and its suffix (empty for a folder); OptionError or OutputError if unusable."""
    text = os.fspath(target)
    if not text or "\0" in text:
        raise OptionError(f"{text!r} is not a file name; give a file to write")
    if text == "-":
        raise OptionError(
            "{value} is not a file: results are not written to standard output",
            remedy="give the name of a file or a folder",
            value=text,
        )
    path = Path(text)
    try:
        exists_as_folder = path.is_dir()
    except OSError as error:  # a folder above it may not be entered
        raise output_error(path, error) from error
    is_folder = exists_as_folder or text.endswith(("/", os.sep)) or not path.suffix
    suffix = "" if is_folder else path.suffix.lower()
    if suffix and suffix not in CONTAINERS and suffix not in WRITABLE_SUFFIXES:
        raise OptionError(
            f"{path.name}: {suffix} is not written; give {', '.join(CONTAINERS)}, "
            f"{', '.join(WRITABLE_SUFFIXES)}, or a folder for PNG frames"
        )
    try:
        if not path.absolute().parent.is_dir():
            raise OutputError(f"{path} cannot be written: {path.parent} is not a directory")
        if path.exists():
            _check_existing(path, source, overwrite, is_folder)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise output_error(path, error) from error
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
        return bool(FRAME_NAME.match(file.name)) and file.is_file() and is_marked(file)
    except InputError:  # empty, or not to be read
        return False


def _is_our_part(folder: Path) -> bool:
    """Whether this is what a job that was killed left in its target folder."""
    if not _PART_NAME.match(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    return all(FRAME_NAME.match(file.name) for file in folder.iterdir())


def check_output_size(path: Path, width: int, height: int) -> None:
    """OptionError where no encoder takes frames so large, or so small."""
    too_large = max(width, height) > MAX_SIDE or width * height > MAX_OUTPUT_PIXELS
    if width < 1 or height < 1 or too_large:
        raise OptionError(
            f"{path.name} would be {width}x{height}; at most {MAX_SIDE} pixels a side can be "
            "written; choose a smaller scale"
        )


def remove_leftovers(target: str | Path) -> None:
    """Remove what killed runs for this target left beside or in it. Only for the target's only
    writer: what another one is at would go too."""
    path = Path(target).absolute()
    if len(path.name) > 80:  # the names of parts are cut there, and might be another target's
        return
    suffix = "" if path.is_dir() else path.suffix
    stem = path.stem if suffix else path.name
    part = re.compile(rf"^\.{re.escape(stem)}\.[0-9a-f]{{8}}\.part{re.escape(suffix)}$")
    for folder in {path.parent, path} if path.is_dir() else {path.parent}:
        with contextlib.suppress(OSError):
            for file in [file for file in folder.iterdir() if part.match(file.name)]:
                if _is_our_part(file):
                    remove_frames(file)
                elif file.is_file() and not file.is_symlink():
                    file.unlink()


def output_error(path: Path, error: BaseException, kept: Path | None = None) -> OutputError:
    """``kept``: where the finished result is, if only putting it in its place failed."""
    where = f"; the result is in {kept}" if kept else ""
    return OutputError(f"{path} cannot be written: {reason(error)}{where}")


def left_notes(part: Part) -> list[str]:
    """What could not be removed of a killed job, a line each."""
    return [f"{name} is left of a job that was killed; it cannot be removed" for name in part.left]


@contextmanager
def beside(path: Path, suffix: str) -> Iterator[Part]:
    """A new file next to ``path`` that takes its place in the end, or goes without a trace."""
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
    remove_frames(old)
