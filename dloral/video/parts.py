"""Results in progress: a file or folder beside the target, under a name of its own, locked.

The lock ends with the process, however that ends. So the next job for the same target knows which
parts are abandoned, and removes them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where a file being written cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]

_LONGEST = 100
"""Bytes of the target's name in a part's name: file systems allow 255 in all."""

FRAME_NAME = re.compile(r"^[^.].*\.png$")


def _prefix(path: Path, suffix: str) -> str:
    name = path.stem if suffix else path.name
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return f".{name}."


class Part:
    """A new, locked file or folder (``is_folder``) for ``path``, in ``folder``; OSError if it
    cannot be made. ``left``: what killed jobs left and could not be removed."""

    def __init__(self, path: Path, folder: Path, suffix: str = "", is_folder: bool = False) -> None:
        self.left = remove_dead(path, folder, suffix)
        while True:
            self.path = folder / f"{_prefix(path, suffix)}{secrets.token_hex(4)}.part{suffix}"
            if is_folder:
                self.path.mkdir()
                self._lock: int | None = _open(self.path)
            else:
                # created now, so that missing permission on the folder shows before the work
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
                self._lock = os.open(self.path, flags, 0o666)
            if self._lock is None or self._is_locked(self._lock):
                return
            self.close()

    def _is_locked(self, lock: int) -> bool:
        """Locked, unless another job took it for a dead one in the meantime."""
        try:
            _lock(lock)
            return os.path.samestat(self.path.stat(), os.fstat(lock))
        except FileNotFoundError:
            return False
        except OSError:  # a file system without locks
            return True

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(file: int) -> None:
    """BlockingIOError if another process holds it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return None


def remove_dead(path: Path, folder: Path, suffix: str) -> list[str]:
    """Delete what killed jobs left of ``path`` in ``folder``; returns the names that remain."""
    ours = re.compile(re.escape(_prefix(path, suffix)) + r"[0-9a-f]{8}\.part" + re.escape(suffix))
    left = []
    with contextlib.suppress(OSError):
        for part in folder.iterdir():
            if not ours.fullmatch(part.name) or part.is_symlink():
                continue
            lock = _open(part)
            try:
                if lock is not None:
                    _lock(lock)
            except BlockingIOError:
                continue  # in use
            except OSError:
                left.append(part.name)
                continue
            finally:
                if lock is not None:
                    os.close(lock)
            if not _removed(part):
                left.append(part.name)
    return left


def _removed(part: Path) -> bool:
    try:
        if part.is_dir():
            remove_frames(part)
        else:
            part.unlink()
    except OSError:
        return False
    return not part.exists()


def remove_frames(folder: Path) -> None:
    """Delete a folder of our own frames; anything else in it stays, and the folder with it."""
    # What cannot be deleted is no reason to hide how the job itself went.
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            if FRAME_NAME.match(file.name):
                file.unlink()
        folder.rmdir()
