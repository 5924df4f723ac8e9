"""One run at a time for one target."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from dloral.errors import OutputError
from dloral.files import beside, is_folder, is_there
from dloral.video.pipes import is_pipe


@contextmanager
def lock_target(target: str | Path) -> Iterator[None]:
    """Hold ``.NAME.lock`` beside the target; OutputError if another run, on this machine or on one
    that shares the disk, holds it. The system releases the lock of a process that dies.

    Where no file can be created beside the target (a mount point in somebody else's folder, a
    pipe) there is no lock.
    """
    if is_pipe(target):
        yield
        return
    place = Path(target).absolute()
    if not is_folder(place.parent):  # the lock would create it; the writer reports it missing
        yield
        return
    lock = FileLock(beside(place, ".", ".lock"), timeout=0)
    if not _is_acquired(lock, Path(target)):
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _is_acquired(lock: BaseFileLock, target: Path) -> bool:
    """False where no file can be created; OutputError if another run holds it."""
    for _ in range(2):
        try:
            lock.acquire()
        except Timeout as error:
            # Where a folder takes no files at all, as /proc, filelock waits for one to go away. Or
            # the other run has just ended, and the next try succeeds.
            if is_there(lock.lock_file):
                raise OutputError(
                    "{path} is being written by another run",
                    remedy="wait for it, or give another target",
                    path=target,
                ) from error
        except OSError:
            return False
        else:
            return True
    return False
