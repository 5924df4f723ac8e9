"""The SQLite file of a list of jobs: opening, checking and changing it, and handling its errors."""

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dloral.errors import OutputError
from dloral.jobs.records import COLUMNS, JobRecord, record_of

VERSION = 1
_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    folder TEXT NOT NULL,
    settings TEXT NOT NULL,
    frame INTEGER NOT NULL DEFAULT 0,
    num_frames INTEGER,
    rate REAL NOT NULL DEFAULT 0,
    wish TEXT NOT NULL DEFAULT '',
    worker TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    error TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    ended REAL,
    expires REAL
);
CREATE INDEX by_order ON jobs (state, position);
CREATE INDEX by_owner ON jobs (owner, position);
"""

_NO_ROOM = 1 << 16
"""Bytes free on a disk that is as good as full."""

_DAMAGE = (0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""Error codes that a damaged file gives; SQLITE_ERROR is for a column with another name."""

SELECT = f"SELECT {', '.join(COLUMNS)} FROM jobs"


def is_job_list(path: Path) -> bool:
    """Whether the file is a list of jobs, of whatever version, and not damaged; it is only read."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=5)) as database:
            database.execute(f"{SELECT} LIMIT 1")
    except sqlite3.Error:
        return False
    return True


class DamagedStoreError(OutputError):
    """The file is not a list of jobs, or is incomplete."""


class StoreFile:
    """The file at ``path``, created if it does not exist. OutputError if it cannot be used, such
    as on a full disk, DamagedStoreError if it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path, timeout=30, check_same_thread=False, isolation_level=None
            )
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")  # commits survive a power failure
            path.chmod(0o600)
            version = self._prepare()
        except OutputError:
            self.close()
            raise
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise self._unusable(error) from error
        if version not in (0, VERSION):
            self.close()
            raise OutputError(
                "{path} was written by another version of DLoRAL",
                remedy="remove it, or give another folder",
                path=path,
            )

    def _prepare(self) -> int:
        """Create the table if there is none; the version of what is there."""
        with self._change() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                if database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                    raise sqlite3.DatabaseError("it has no version")
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {VERSION}")
        if version in (0, VERSION):
            (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found.splitlines()[0])
            try:
                self._records(SELECT)
            except (ValueError, TypeError) as error:  # a row does not hold what was written
                raise sqlite3.DatabaseError(f"a row is damaged: {error}") from error
        return int(version)

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction; within another one, part of it."""
        with self._lock:
            if self._database.in_transaction:
                yield self._database
                return
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except BaseException as error:
                if self._database.in_transaction:  # SQLite may have ended it by itself
                    self._database.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._unusable(error) from error
                raise

    def _unusable(self, error: sqlite3.Error | OSError) -> OutputError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        is_full = code == sqlite3.SQLITE_FULL or (
            # no room for what it keeps beside the file
            code == sqlite3.SQLITE_IOERR and shutil.disk_usage(self.path.parent).free < _NO_ROOM
        )
        # Others come from locks, permissions and the disk; this module's own have no code.
        is_damaged = isinstance(error, sqlite3.Error) and code in _DAMAGE
        return (DamagedStoreError if is_damaged else OutputError)(
            "{path} cannot be used as a list of jobs: {value}",
            remedy="free some space there" if is_full else "remove it, or give another folder",
            path=self.path,
            value=os.strerror(errno.ENOSPC).lower() if is_full else str(error),
        )

    def _records(self, query: str, *values: object) -> list[JobRecord]:
        with self._lock:
            rows = self._database.execute(query, values).fetchall()
        return [record_of(dict(zip(COLUMNS, row, strict=True))) for row in rows]
