"""The durable list of jobs: order, owners, wishes, expiry, and what is there after SIGKILL."""

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dloral.errors import InputError, OutputError
from dloral.jobs.records import (
    CANCELLED,
    DONE,
    FAILED,
    PAUSED,
    RUNNING,
    WAITING,
    JobRecord,
)
from dloral.jobs.store import JobStore
from dloral.jobs.store_file import DamagedStoreError

ME, YOU = "my token", "your token"


@pytest.fixture
def store(tmp_path: Path):
    store = JobStore(tmp_path / "data" / "jobs.sqlite")
    yield store
    store.close()


def add(store: JobStore, name: str, owner: str = ME) -> JobRecord:
    return store.add(owner, name, Path(f"/clips/{name}"), Path(f"/jobs/{name}"), {"scale": 2})


def names(records: list[JobRecord]) -> list[str]:
    return [record.name for record in records]


def test_jobs_are_claimed_in_order_and_end(store):
    first, second = add(store, "a"), add(store, "b", YOU)
    assert (first.state, first.settings, first.source) == (WAITING, {"scale": 2}, Path("/clips/a"))
    assert [store.before(first.id), store.before(second.id)] == [0, 1]
    claimed = store.claim("w")
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.attempts) == (first.id, RUNNING, 1)
    assert store.report(first.id, 5, 10, 2.5) == ""
    assert store.get(first.id).seconds_left == 2
    assert store.before(second.id) == 1
    store.end(first.id, DONE, {"file": "a.mp4"}, keep_seconds=60)
    done = store.get(first.id, ME)
    assert (done.state, done.result, done.has_ended) == (DONE, {"file": "a.mp4"}, True)
    assert done.expires is not None
    assert store.claim("w").id == second.id
    assert store.claim("w") is None
    assert len(store) == 1


def test_owners_see_their_own_alone(store):
    mine, yours = add(store, "a"), add(store, "b", YOU)
    assert names(store.of(ME)) == ["a"]
    for call in (store.get, store.pause, store.cancel, store.proceed, store.retry, store.remove):
        with pytest.raises(InputError, match="there is no job"):
            call(yours.id, ME)
    with pytest.raises(InputError, match="there is no job"):
        store.move(mine.id, ME, yours.id)
    assert store.get(yours.id, YOU).state == WAITING
    content = b"".join(file.read_bytes() for file in store.path.parent.iterdir())
    assert ME.encode() not in content
    assert store.path.stat().st_mode & 0o077 == 0


def test_order_is_changed_among_ones_own(store):
    ids = {
        name: add(store, name, owner).id
        for name, owner in zip("abcd", (ME, YOU, ME, ME), strict=True)
    }
    assert names(store.move(ids["d"], ME, ids["a"])) == ["d", "a", "c"]
    assert names(store.move(ids["d"], ME)) == ["a", "c", "d"]
    store.move(ids["c"], ME, ids["a"])
    assert [store.claim("w").name for _ in range(4)] == ["c", "b", "a", "d"]


def test_pause_proceed_cancel_retry(store):
    job = add(store, "a").id
    assert store.pause(job, ME).state == PAUSED
    assert store.claim("w") is None
    assert store.proceed(job, ME).state == WAITING
    store.claim("w")
    assert store.pause(job, ME).state == RUNNING
    assert store.report(job, 1) == PAUSED
    store.proceed(job, ME)
    assert store.report(job, 2) == ""
    store.cancel(job, ME)
    assert store.report(job, 3) == CANCELLED
    store.end(job, CANCELLED)
    with pytest.raises(InputError, match="a is cancelled"):
        store.pause(job, ME)
    again = store.retry(job, ME, {"scale": 4})
    assert (again.state, again.settings, again.wish) == (WAITING, {"scale": 4}, "")
    store.claim("w")
    with pytest.raises(InputError, match="a is running"):
        store.remove(job, ME)
    store.end(job, FAILED, error="a.mp4 is damaged")
    assert store.get(job).error == "a.mp4 is damaged"
    store.remove(job, ME)
    assert store.of(ME) == []
    assert store.report(job, 9) == CANCELLED


def test_what_has_expired_is_given_back_once(store):
    old, new = add(store, "old").id, add(store, "new").id
    for job, seconds in ((old, 10), (new, 1000)):
        store.claim("w")
        store.end(job, DONE, keep_seconds=seconds)
    now = store.get(old).ended + 11
    assert names(store.expire(now)) == ["old"]
    assert store.expire(now) == []
    assert names(store.of(ME)) == ["new"]


def test_two_workers_never_claim_the_same(store):
    for index in range(40):
        add(store, str(index))
    other, claimed = JobStore(store.path), []

    def work(mine: JobStore) -> None:
        while (job := mine.claim("w")) is not None:
            claimed.append(job.name)

    threads = [threading.Thread(target=work, args=(one,)) for one in (store, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert sorted(claimed, key=int) == [str(index) for index in range(40)]


KILLED = """
import os, signal, sys
from pathlib import Path
from dloral.jobs.store import JobStore
from dloral.jobs.store_file import DamagedStoreError
store = JobStore(Path(sys.argv[1]))
for name in "abcd":
    store.add("my token", name, Path(name), Path(name), {})
first, second, third = (store.claim("server") for _ in range(3))
store.report(first.id, 7, 10, 1.0)
store.pause(second.id, "my token")
store.cancel(third.id, "my token")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sigkill_loses_nothing(store):
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [job.state for job in store.of(ME)] == [RUNNING] * 3 + [WAITING]
    assert names(store.recover()) == ["a", "b", "c"]
    assert [job.state for job in store.of(ME)] == [WAITING, PAUSED, CANCELLED, WAITING]
    assert store.claim("again").frame == 7


def test_a_full_disk_is_one_line_and_later_changes_are_committed(store):
    (pages,) = store._database.execute("PRAGMA page_count").fetchone()
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutputError, match="no space left on device; free some space") as caught:
        add(store, "a" * 100_000)
    assert "\n" not in str(caught.value)
    store._database.execute("PRAGMA max_page_count = 100000")
    later = add(store, "later")
    assert names(JobStore(store.path).of(ME))[-1] == later.name  # as another process sees it


def test_a_commit_that_fails_leaves_no_transaction_open(store, monkeypatch):
    class Full:
        """Only its commit fails, as where the write-ahead log cannot grow."""

        def __getattr__(self, name: str) -> object:
            return getattr(database, name)

        def execute(self, statement: str, *values: object) -> object:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return database.execute(statement, *values)

    database = store._database
    with monkeypatch.context() as patch:
        patch.setattr(store, "_database", Full())
        with pytest.raises(OutputError, match="disk I/O error"):
            add(store, "lost")
    add(store, "later")
    assert names(JobStore(store.path).of(ME)) == ["later"]


def test_a_file_that_is_none_or_of_another_version_is_said(tmp_path):
    (tmp_path / "text").write_bytes(b"not a database, but long enough to be looked at" * 99)
    with pytest.raises(OutputError, match="cannot be used as a list of jobs"):
        JobStore(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(OutputError, match="by another version"):
        JobStore(tmp_path / "other")
    with pytest.raises(OutputError, match="cannot be used as a list of jobs"):
        JobStore(tmp_path / "text" / "jobs")


def _overwrite(file: Path) -> None:
    file.write_bytes(b"no header" * 20 + file.read_bytes()[180:])


def _empty_a_page(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:4096] + bytes(4096) + file.read_bytes()[8192:])


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5000])


def _change_a_row(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'{"scale": 2}', b'{"scale": 2['))


@pytest.mark.parametrize("damage", [_overwrite, _empty_a_page, _cut, _change_a_row])
def test_a_damaged_file_is_said_to_be_one(tmp_path, damage):
    store = JobStore(tmp_path / "jobs.sqlite")
    for number in range(30):
        add(store, f"{number}")
    store.close()
    damage(store.path)
    with pytest.raises(DamagedStoreError, match="cannot be used as a list of jobs") as caught:
        JobStore(store.path)
    assert "\n" not in str(caught.value)


def test_a_disk_that_was_full_loses_nothing_later(store):
    first = add(store, "a")
    (pages,) = store._database.execute("PRAGMA page_count").fetchone()
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutputError, match="no space left on device; free some space there"):
        store.add(ME, "b", Path("/b"), Path("/b"), {"prompt": "x" * 20_000})
    store._database.execute("PRAGMA max_page_count = 1000000")
    store.end(first.id, DONE)
    add(store, "c")
    other = JobStore(store.path)  # sees what was committed alone
    assert [(job.name, job.state) for job in other.all()] == [("a", DONE), ("c", WAITING)]
    other.close()


def test_a_job_kept_elsewhere_comes_back_as_it_was(store, tmp_path):
    record = add(store, "a")
    store.end(record.id, DONE, {"file": "a.mp4"}, keep_seconds=60)
    kept = store.get(record.id)
    other = JobStore(tmp_path / "other.sqlite")
    other.put(kept)
    other.put(record)  # it is there: nothing changes
    assert other.all() == [kept]
    other.close()
