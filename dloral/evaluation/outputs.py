"""Files written at the end of a long measurement: checked before it, written whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from dloral.errors import OptionError, OutputError
from dloral.evaluation.pairs import CLIP_SUFFIXES
from dloral.video.images import IMAGE_SUFFIXES
from dloral.video.media import reason


def check_output(path: Path, sources: Iterable[str | Path | None] = ()) -> None:
    """Check before the work whether ``path`` can be written at its end.

    Raises :class:`OutputError` where no file can be made there, and :class:`OptionError` where
    that would change one of the ``sources``: clips, folders of frames, folders of clips. Links
    and other spellings of a name are resolved; missing sources are ignored here.
    """
    try:
        if not path.parent.is_dir():
            raise OutputError("{path} is not a directory", remedy="make it first", path=path.parent)
        if path.is_dir():
            raise OutputError(
                "{path} is a folder", remedy="give the name of a file in it", path=path
            )
        if not os.access(path.parent, os.W_OK):
            raise OutputError(
                "{path} may not be written to", remedy="give another folder", path=path.parent
            )
        for source in sources:
            if source is not None and Path(source).exists():
                _check_apart(path, Path(source))
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            "{path} cannot be written: {reason}", path=path, reason=reason(error)
        ) from error


def _check_apart(path: Path, source: Path) -> None:
    if path.exists() and any(path.samefile(file) for file in _files_of(source)):
        raise OptionError("{path} is read as a source", remedy="write to another name", path=path)
    # A picture written into a folder of frames would count as one of them next time.
    if path.suffix.lower() in IMAGE_SUFFIXES and source.is_dir() and path.parent.samefile(source):
        raise OptionError(
            "{path} lies in the folder of frames {source}",
            remedy="write to another folder",
            path=path,
            source=source,
        )


def _files_of(source: Path) -> Iterator[Path]:
    """The files from which a clip, a folder of frames or a folder of clips is read."""
    if not source.is_dir():
        yield source
        return
    for file in source.rglob("*"):
        if file.suffix.lower() in (*IMAGE_SUFFIXES, *CLIP_SUFFIXES) and file.exists():
            yield file
