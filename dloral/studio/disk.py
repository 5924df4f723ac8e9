"""How much of the disk all visitors together may fill."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dloral.errors import InputError

KEPT_FREE = 500_000_000
"""Bytes that stay free on the disk."""

LOOK_SECONDS = 2
"""For so long it is believed how much is used: every upload asks."""


class NoRoomError(InputError):
    """The disk has no room for what was requested; the file is not to blame."""


class Disk:
    """The folders that hold what visitors send and what is made of it.

    ``most``: bytes of all of it, None: whatever the disk has but :data:`KEPT_FREE`. ``promised``:
    bytes that jobs which were let in will still write.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        most: int | None = None,
        promised: Callable[[], float] = lambda: 0,
    ) -> None:
        self.folders, self.most, self._promised = tuple(folders), most, promised
        self._lock = threading.Lock()
        self._seen = -float(LOOK_SECONDS), 0

    @property
    def used(self) -> int:
        """Bytes of all files, as seen a moment ago."""
        with self._lock:
            now = time.monotonic()
            if now - self._seen[0] >= LOOK_SECONDS:
                self._seen = now, sum(map(size_of, self.folders))
            return self._seen[1]

    @property
    def room(self) -> int:
        """Bytes that may still be written; 0 where there are none."""
        free = [
            shutil.disk_usage(place).free - KEPT_FREE
            for folder in self.folders
            if (place := _there(folder)) is not None
        ]
        if self.most is not None:
            free.append(self.most - self.used)
        return max(0, int(min(free, default=0) - self._promised()))

    def check(self, size: float, remedy: str) -> None:
        """NoRoomError if a result of about ``size`` bytes has no room."""
        if size > (room := self.room):
            raise NoRoomError(
                f"the result needs about {in_words(size)}, but only {in_words(room)} of disk "
                "space is free",
                remedy=remedy,
            )

    def check_upload(self, size: int) -> None:
        """NoRoomError if a file of ``size`` bytes has no room."""
        if size > (room := self.room):
            raise NoRoomError(
                f"not enough disk space for this file: only {in_words(room)} is free",
                remedy="try again later, or use the command line",
            )


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder; skips those that vanish meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118  # thousands
            except OSError:
                continue
    return total


def in_words(size: float) -> str:
    """``4.9 GB``; small ones in MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _there(folder: Path) -> Path | None:
    """The folder, or the one that it will be made in."""
    return next((one for one in (folder, *folder.parents) if one.is_dir()), None)
