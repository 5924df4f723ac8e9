"""Files that are written at the end of a long measuring: looked at before it, written whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dloral.errors import OptionError, OutputError
from dloral.evaluation.pairs import CLIP_SUFFIXES
from dloral.video.images import IMAGE_SUFFIXES
from dloral.video.media import reason


def check_output(path: Path, sources: Iterable[str | Path | None] = ()) -> None:
    """Say before the work whether ``path`` can be written at its end.

    Raises :class:`OutputError` where no file can be made there, and :class:`OptionError` where
    that would change one of the ``sources``: clips, folders of frames, folders of clips. Links
    and other spellings of a name are seen through; sources that are not there are no matter here.
    """
    try:
        if not path.parent.is_dir():
            raise OutputError(f"{path.parent} is not a directory; make it first")
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a file in it")
        if not os.access(path.parent, os.W_OK):
            raise OutputError(f"{path.parent} may not be written to; give another folder")
        for source in sources:
            if source is not None and Path(source).exists():
                _check_apart(path, Path(source))
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path} cannot be written: {reason(error)}") from error


def _check_apart(path: Path, source: Path) -> None:
    if path.exists() and any(path.samefile(file) for file in _files_of(source)):
        raise OptionError(f"{path} is read as a source; write to another name")
    # A picture that is written into a folder of frames would be one of them the next time.
    if path.suffix.lower() in IMAGE_SUFFIXES and source.is_dir() and path.parent.samefile(source):
        raise OptionError(f"{path} lies in the folder of frames {source}; write to another folder")


def _files_of(source: Path) -> Iterator[Path]:
    """The files that a clip, a folder of frames or a folder of clips is read from."""
    if not source.is_dir():
        yield source
        return
    for file in source.rglob("*"):
        if file.suffix.lower() in (*IMAGE_SUFFIXES, *CLIP_SUFFIXES) and file.exists():
            yield file


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """``write`` to a place beside the target, then into it: whole or not at all.

    Raises :class:`OutputError` where that fails.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".dloral-") as folder:
            part = Path(folder) / path.name
            write(part)
            part.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {reason(error)}") from error
