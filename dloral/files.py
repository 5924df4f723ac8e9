"""Files that appear whole or not at all: written next to their target, then moved onto it."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dloral.errors import OutputError

_LONGEST_NAME = 255
"""Bytes of a name in the usual file systems."""


def beside(path: Path, prefix: str = "", suffix: str = "") -> Path:
    """``path`` with its name between ``prefix`` and ``suffix``; a name that would be too long is
    cut, with a digest that tells it from others with the same beginning."""
    name = path.name
    most = _LONGEST_NAME - len(os.fsencode(prefix + suffix))
    if len(os.fsencode(name)) > most:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        while len(os.fsencode(name)) > most - len(digest) - 1:
            name = name[:-1]
        name = f"{name}-{digest}"
    return path.with_name(f"{prefix}{name}{suffix}")


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder. Not where no name can be looked up either, because it is too long
    or leads through a folder that is closed: ``Path.is_dir`` of Python 3.11 raises OSError there.
    """
    return os.path.isdir(path)  # noqa: PTH112


def is_there(path: str | Path) -> bool:
    """Whether a file or folder exists, as :func:`is_folder` understands it."""
    return os.path.exists(path)  # noqa: PTH110


def some_names(names: Sequence[str], most: int = 3) -> str:
    """The first ``most`` names in a line, for a message."""
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


def write_whole(path: Path, write: Callable[[Path], object], parents: bool = False) -> None:
    """Call ``write`` with a temporary path of the same name, then move the file to ``path``.

    What was at ``path`` stays until then. ``parents``: create its parent folders. Raises
    :class:`OutputError` where it cannot be written.
    """
    with writing(path):
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".dloral-") as folder:
            part = Path(folder) / path.name
            write(part)
            part.replace(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into :class:`OutputError` that names ``path``."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            "{path} cannot be written: {reason}",
            path=path,
            reason=(error.strerror or str(error)).lower(),
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text by :func:`write_whole`."""
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write indented JSON by :func:`write_whole`; non-finite numbers become null."""
    write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
