"""The folder of ``--data``: which one is ours, and what in it.

People name folders that hold their own files, by mistake or to keep all in one place. So a folder
is used only if it is empty or was made by this program, and in ``sessions`` only folders of the
form that visits have are ours.
"""

import contextlib
import errno
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from dloral.errors import OutputError
from dloral.jobs.store_file import is_job_list
from dloral.studio.jottings import SUFFIX
from dloral.weights.registry import models_home

LIST, SESSIONS = "jobs.sqlite", "sessions"

MARKER = ".dloral"
"""A file that says that the folder is ours; earlier versions did not make it."""

_LOCK = ".lock"
_MARK = "DLoRAL keeps visitors' clips, jobs and results in this folder, and removes them itself.\n"
_VISIT = re.compile(r"[0-9a-f]{24}")
_DISKS_OWN = "lost+found"


def new_visit(sessions: Path) -> Path:
    """Where a new visit's files go; not made yet."""
    return sessions / secrets.token_hex(12)


def is_visit(folder: Path) -> bool:
    """Whether it is a visit's folder, and not one that somebody else put there."""
    is_named_so = _VISIT.fullmatch(folder.name) is not None
    return is_named_so and folder.is_dir() and not folder.is_symlink()


@contextlib.contextmanager
def kept_folder(chosen: str | None) -> Iterator[Path | None]:
    """The folder that outlives the page, held exclusively; ``chosen``: that of ``--data``. None
    where another page has it or it cannot be used (OutputError if it was chosen)."""
    folder = (Path(chosen) if chosen else models_home() / "page").absolute()
    try:
        lock = _take(folder)
    except (OSError, Timeout) as error:
        is_taken = isinstance(error, Timeout)
        why = "another page is using it" if is_taken else error.strerror or str(error)
        if chosen:
            raise OutputError(
                "{path} cannot be used: {value}",
                remedy="give another folder",
                path=folder,
                value=why,
            ) from error
        print(
            f"jobs will not outlive this page: {folder} cannot be used: {why}; choose another "
            "with --data",
            file=sys.stderr,
        )
        yield None
        return
    try:
        yield folder
    finally:
        lock.release()


def _take(folder: Path) -> FileLock:
    """Hold ``folder``, which is made where it does not exist. Only what is made here is closed to
    others; a folder that was there stays as open as its owner made it."""
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o700)
    if not is_ours(folder):
        raise OSError(errno.ENOTEMPTY, "it holds files that this program did not make")
    lock = FileLock(folder / _LOCK, timeout=0)
    lock.acquire()
    with contextlib.suppress(OSError):  # on a full disk the next server writes it
        if not (folder / MARKER).exists():
            (folder / MARKER).write_text(_MARK, encoding="utf-8")
    sessions = folder / SESSIONS
    sessions.mkdir(exist_ok=True)
    sessions.chmod(0o700)
    return lock


def is_ours(folder: Path) -> bool:
    """Whether the folder is as good as empty, or this program made it, in this version or an
    earlier one; nothing is written."""
    names = {entry.name for entry in folder.iterdir()} - {_DISKS_OWN}
    if MARKER in names:
        return True
    seen = {name for name in names if not name.startswith(".")}
    visits = list((folder / SESSIONS).glob("*"))
    if seen <= {SESSIONS} and all(map(is_visit, visits)):
        return True
    has_job = any(list(visit.glob(f"*{SUFFIX}")) for visit in visits if is_visit(visit))
    return has_job or is_job_list(folder / LIST)
