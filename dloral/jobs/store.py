"""A durable list of jobs in one SQLite file: their owners, order, progress and expiry.

The store outlives the process: after SIGKILL or a power failure every job is there as it was
last committed, and :meth:`JobStore.recover` puts those that were running back in the queue. Many
threads and processes may use one file. Owners are identified by secret tokens, of which only
hashes are kept, so that a copy of the file gives access to nobody's results.
"""

import json
import secrets
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from dloral.errors import InputError
from dloral.jobs.records import (
    CANCELLED,
    ENDED,
    FAILED,
    PAUSED,
    RUNNING,
    WAITING,
    JobRecord,
)
from dloral.jobs.store_file import SELECT, StoreFile


class JobStore(StoreFile):
    """The jobs in ``path``, which is created if it does not exist.

    Every change is committed when the call returns. Calls with an ``owner`` see only that owner's
    jobs: InputError for another's, as for one that does not exist. OutputError if the file cannot
    be used, such as on a full disk, and DamagedStoreError if it is damaged.
    """

    # What an owner does ----------------------------------------------------------------------

    def add(
        self, owner: str, name: str, source: Path, folder: Path, settings: dict[str, Any]
    ) -> JobRecord:
        """A new job, last in the queue. ``name``: what people call it."""
        job = secrets.token_hex(8)
        with self._change() as database:
            database.execute(
                "INSERT INTO jobs (id, owner, state, position, name, source, folder, settings,"
                " created) VALUES (?, ?, ?, (SELECT COALESCE(MAX(position), 0) + 1 FROM jobs),"
                " ?, ?, ?, ?, ?)",
                (
                    *(job, hashed(owner), WAITING, name, str(source), str(folder)),
                    *(json.dumps(settings), time.time()),
                ),
            )
        return self.get(job)

    def of(self, owner: str) -> list[JobRecord]:
        """The owner's jobs in order."""
        return self._records(f"{SELECT} WHERE owner = ? ORDER BY position", hashed(owner))

    def all(self) -> list[JobRecord]:
        """Everybody's jobs in order."""
        return self._records(f"{SELECT} ORDER BY position")

    def get(self, job: str, owner: str | None = None) -> JobRecord:
        records = self._records(f"{SELECT} WHERE id = ?", job)
        if not records or (owner is not None and not self._owns(owner, job)):
            raise InputError(
                "there is no job {value}", remedy="it was removed or has expired", value=repr(job)
            )
        return records[0]

    def pause(self, job: str, owner: str) -> JobRecord:
        """Pause a job, which keeps its place and work; a running one stops within a frame."""
        return self._wish(job, owner, PAUSED, from_states=(WAITING, RUNNING))

    def cancel(self, job: str, owner: str) -> JobRecord:
        return self._wish(job, owner, CANCELLED, from_states=(WAITING, RUNNING, PAUSED))

    def proceed(self, job: str, owner: str) -> JobRecord:
        """A paused job waits for its turn again; one about to be paused continues."""
        with self._change() as database:
            found = self.get(job, owner)
            if found.state == PAUSED:
                database.execute(
                    "UPDATE jobs SET state = ?, wish = '' WHERE id = ?", (WAITING, job)
                )
            elif found.state == RUNNING and found.wish == PAUSED:
                database.execute("UPDATE jobs SET wish = '' WHERE id = ?", (job,))
            else:
                raise _not_now(found)
        return self.get(job)

    def retry(self, job: str, owner: str, settings: dict[str, Any] | None = None) -> JobRecord:
        """A failed or cancelled job waits again, in its old place; its finished work is used."""
        with self._change() as database:
            found = self.get(job, owner)
            if found.state not in (FAILED, CANCELLED):
                raise _not_now(found)
            kept = found.settings if settings is None else settings
            database.execute(
                "UPDATE jobs SET state = ?, wish = '', error = '', ended = NULL, expires = NULL,"
                " settings = ? WHERE id = ?",
                (WAITING, json.dumps(kept), job),
            )
        return self.get(job)

    def move(self, job: str, owner: str, before: str | None = None) -> list[JobRecord]:
        """Put a job before another of the same owner; None: after all of theirs.

        Other owners' jobs keep their places: the owner's swap places among themselves.
        """
        with self._change():
            order = [record.id for record in self.of(owner)]
            for named in (job, before):
                if named is not None and named not in order:
                    self.get(named, owner)  # raises
            order.remove(job)
            order.insert(len(order) if before is None else order.index(before), job)
            self.arrange(order)
        return self.of(owner)

    def remove(self, job: str, owner: str) -> JobRecord:
        """Forget a job that is not running; its record, for whoever removes its files."""
        with self._change() as database:
            found = self.get(job, owner)
            if found.state == RUNNING:
                raise _not_now(found)
            database.execute("DELETE FROM jobs WHERE id = ?", (job,))
        return found

    # What a worker does ----------------------------------------------------------------------

    def put(self, record: JobRecord) -> None:
        """Add a job as it was kept elsewhere, unless the store already has it."""
        values = record.as_row()
        with self._change() as database:
            database.execute(
                f"INSERT OR IGNORE INTO jobs ({', '.join(values)})"
                f" VALUES ({', '.join('?' * len(values))})",
                tuple(values.values()),
            )

    def claim(self, worker: str) -> JobRecord | None:
        """The first waiting job, which now belongs to this worker; None if none waits."""
        with self._change() as database:
            found = database.execute(
                "UPDATE jobs SET state = ?, worker = ?, attempts = attempts + 1, wish = ''"
                " WHERE id = (SELECT id FROM jobs WHERE state = ? ORDER BY position LIMIT 1)"
                " RETURNING id",
                (RUNNING, worker, WAITING),
            ).fetchone()
        return self.get(found[0]) if found else None

    def begin(self, job: str, worker: str = "") -> None:
        """Mark a job as running, where its turn is decided elsewhere."""
        with self._change() as database:
            database.execute(
                "UPDATE jobs SET state = ?, worker = ?, attempts = attempts + 1 WHERE id = ?",
                (RUNNING, worker, job),
            )

    def arrange(self, jobs: Sequence[str]) -> None:
        """Let jobs swap places so that they are in this order; others keep theirs."""
        with self._change() as database:
            known = {record.id: record.position for record in self.all()}
            order = [job for job in dict.fromkeys(jobs) if job in known]
            places = sorted(known[job] for job in order)
            database.executemany(
                "UPDATE jobs SET position = ? WHERE id = ?", zip(places, order, strict=True)
            )

    def wait(self, job: str, settings: dict[str, Any], is_last: bool = False) -> None:
        """Mark a job as waiting (again), where its turn is decided elsewhere: in its place, or
        after all others."""
        place = "(SELECT MAX(position) + 1 FROM jobs)" if is_last else "position"
        with self._change() as database:
            database.execute(
                "UPDATE jobs SET state = ?, wish = '', error = '', ended = NULL, expires = NULL,"
                f" settings = ?, position = {place} WHERE id = ?",
                (WAITING, json.dumps(settings), job),
            )

    def change(self, job: str, settings: dict[str, Any]) -> None:
        """Change a job's settings before it begins; work done with the old ones is void."""
        with self._change() as database:
            database.execute(
                "UPDATE jobs SET settings = ?, frame = 0 WHERE id = ?", (json.dumps(settings), job)
            )

    def relocate(self, job: str, source: Path, folder: Path) -> None:
        """Record that a job's files are elsewhere now."""
        with self._change() as database:
            database.execute(
                "UPDATE jobs SET source = ?, folder = ? WHERE id = ?",
                (str(source), str(folder), job),
            )

    def forget(self, job: str) -> None:
        """Remove a job whose files are gone, whatever its state."""
        with self._change() as database:
            database.execute("DELETE FROM jobs WHERE id = ?", (job,))

    def report(self, job: str, frame: int, num_frames: int | None = None, rate: float = 0.0) -> str:
        """Report a running job's progress; returns what its owner wants: paused, cancelled or
        nothing. A job that was removed is to be cancelled."""
        with self._change() as database:
            found = database.execute(
                "UPDATE jobs SET frame = ?, num_frames = ?, rate = ? WHERE id = ? RETURNING wish",
                (frame, num_frames, rate, job),
            ).fetchone()
        return found[0] if found else CANCELLED

    def end(
        self,
        job: str,
        state: str,
        result: dict[str, Any] | None = None,
        error: str = "",
        keep_seconds: float | None = None,
    ) -> None:
        """A running job ended as ``state`` (paused included); it expires after ``keep_seconds``."""
        now = time.time()
        ended = now if state in ENDED else None
        expires = now + keep_seconds if ended and keep_seconds is not None else None
        with self._change() as database:
            database.execute(
                "UPDATE jobs SET state = ?, result = ?, error = ?, ended = ?, expires = ?,"
                " wish = '', worker = '' WHERE id = ?",
                (state, json.dumps(result) if result else None, error, ended, expires, job),
            )

    def recover(self, worker: str | None = None) -> list[JobRecord]:
        """Jobs whose worker is gone wait for another, in their old places, and continue from
        their journals. None: of all workers, when a server starts alone."""
        with self._change() as database:
            found = database.execute(
                "UPDATE jobs SET state = CASE WHEN wish = '' THEN ? ELSE wish END, worker = ''"
                " WHERE state = ? AND (? IS NULL OR worker = ?) RETURNING id",
                (WAITING, RUNNING, worker, worker),
            ).fetchall()
        return [self.get(job) for (job,) in found]

    def expire(self, now: float | None = None) -> list[JobRecord]:
        """Forget what has expired; the records, for whoever removes the files."""
        now = time.time() if now is None else now
        with self._change() as database:
            gone = self._records(f"{SELECT} WHERE expires <= ?", now)
            database.execute("DELETE FROM jobs WHERE expires <= ?", (now,))
        return gone

    def before(self, job: str) -> int:
        """How many jobs run before this one; 0 if it is running, or not waiting."""
        with self._lock:
            (count,) = self._database.execute(
                "SELECT COUNT(*) FROM jobs AS other JOIN jobs AS mine ON mine.id = ?"
                " WHERE mine.state = ? AND (other.state = ?"
                " OR (other.state = ? AND other.position < mine.position))",
                (job, WAITING, RUNNING, WAITING),
            ).fetchone()
        return int(count)

    def __len__(self) -> int:
        """The number of jobs running or waiting."""
        with self._lock:
            (count,) = self._database.execute(
                "SELECT COUNT(*) FROM jobs WHERE state IN (?, ?)", (WAITING, RUNNING)
            ).fetchone()
        return int(count)

    # Inside ----------------------------------------------------------------------------------

    def _owns(self, owner: str, job: str) -> bool:
        with self._lock:
            row = self._database.execute("SELECT owner FROM jobs WHERE id = ?", (job,)).fetchone()
        return row is not None and secrets.compare_digest(row[0], hashed(owner))

    def _wish(self, job: str, owner: str, wish: str, from_states: tuple[str, ...]) -> JobRecord:
        with self._change() as database:
            found = self.get(job, owner)
            if found.state not in from_states:
                raise _not_now(found)
            if found.state == RUNNING:
                database.execute("UPDATE jobs SET wish = ? WHERE id = ?", (wish, job))
            else:
                ended = time.time() if wish in ENDED else None
                database.execute(
                    "UPDATE jobs SET state = ?, ended = ? WHERE id = ?", (wish, ended, job)
                )
        return self.get(job)


def hashed(owner: str) -> str:
    """What is kept of an owner's token."""
    return sha256(owner.encode()).hexdigest()


def _not_now(job: JobRecord) -> InputError:
    return InputError(
        "{value} is {state}", remedy="reload the list", value=job.name, state=job.state
    )
