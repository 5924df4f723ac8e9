"""Clean up what crashes leave on the disk, at the start and each hour.

A page's temporary folder is locked as long as the page lives, so one that nobody holds belongs to a
dead page and is deleted. Inside it, and among what Gradio keeps of interrupted uploads and of
calls, anything too old is deleted.
"""

import contextlib
import re
import shutil
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "dloral-page-"
LOCK = ".lock"
EVERY_SECONDS = 3600

_OWN = re.compile(f"{PREFIX}[a-z0-9_]{{8}}")
"""As :mod:`tempfile` names folders; a copy that somebody made has another name."""


def claim(folder: Path) -> FileLock:
    """Hold the page's own folder; the lock ends with the process, however that ends."""
    lock = FileLock(folder / LOCK, timeout=0)
    lock.acquire()
    return lock


def remove_dead(folder: Path) -> list[str]:
    """Delete the folders that dead pages left beside ``folder``; returns their names."""
    removed = []
    for other in folder.parent.glob(f"{PREFIX}*"):
        is_named_so = _OWN.fullmatch(other.name) is not None
        if other == folder or not is_named_so or other.is_symlink():
            continue
        if not (other / LOCK).is_file():
            continue
        lock = FileLock(other / LOCK, timeout=0)
        try:
            with lock:
                shutil.rmtree(other, ignore_errors=True)
            removed.append(other.name)
        except (Timeout, OSError):
            continue  # its page lives, or it is somebody else's
    return removed


def remove_old(folder: Path, seconds: float, spared: Path) -> int:
    """Delete files in ``folder`` that nobody wrote to for so long, but for those below ``spared``,
    which have an owner; how many. Empty folders go too."""
    oldest, count = time.time() - seconds, 0
    # the deepest first, so that folders are empty when they are looked at
    for path in sorted(folder.rglob("*"), key=lambda path: -len(path.parts)):
        if path == folder / LOCK or path == spared or spared in path.parents:
            continue
        with contextlib.suppress(OSError):
            if path.stat(follow_symlinks=False).st_mtime > oldest:
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
                count += 1
    return count


def sweep_hourly(folder: Path, seconds: float, spared: Path) -> threading.Event:
    """:func:`remove_old` from now on each hour, until the event is set."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(EVERY_SECONDS):
            remove_old(folder, seconds, spared)

    threading.Thread(target=sweep, name="sweep", daemon=True).start()
    return ended
