"""What outlives the server of visitors' jobs: their rows in the store, facts about their results.

A job's folder keeps its journal (:mod:`dloral.jobs.journal`), so a job that was running when the
server ended, for whatever reason, resumes from its last segment when the next one starts.
"""

import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from dloral.errors import DLoRALError, OutputError
from dloral.jobs.records import DONE, FAILED, PAUSED, JobRecord
from dloral.jobs.store import JobStore
from dloral.jobs.store_file import DamagedStoreError
from dloral.studio.data_folder import is_visit
from dloral.studio.jottings import jot, jotted, place_of
from dloral.studio.settings import Settings, as_restored, settings_from
from dloral.upscale import Progress
from dloral.video.probe import ClipInfo

_log = logging.getLogger(__name__)

RESULT = "result.json"
REPORT_SECONDS = 1.0
"""How often a running job's progress is committed."""


@dataclass(frozen=True)
class Result:
    """What a finished job left in its folder.

    ``file`` is to be kept, ``settings_file`` beside it. ``viewer_file``: for an image a PNG, else
    an H.264 clip, whose frames hold the bicubic picture above the restored one, so that no player
    can show two different frames. ``times``: when each frame is shown in the source, in seconds.
    ``size``: height and width of the result. ``is_part``: the run was stopped before its end.
    """

    clip: ClipInfo
    settings: Settings
    file: Path
    settings_file: Path
    viewer_file: Path
    profile_file: Path
    times: tuple[Fraction, ...]
    durations: tuple[Fraction, ...]
    size: tuple[int, int]
    measures: dict[str, list[float]]
    notes: tuple[str, ...]
    is_part: bool = False

    @property
    def is_there(self) -> bool:
        """Whether its files still exist; a disk clean-up may have removed them."""
        return self.file.is_file() and self.viewer_file.is_file()


class JobRow:
    """One job's row. ``keep_seconds``: how long a result is kept.

    A list that cannot be written, such as on a full disk, ends no job: that is logged, and the next
    server makes again what it does not know of."""

    def __init__(self, store: JobStore, record: JobRecord, keep_seconds: float) -> None:
        self._store, self._record, self._keep_seconds = store, record, keep_seconds
        self._reported = 0.0

    @property
    def job(self) -> str:
        """Its number in the list."""
        return self._record.id

    def begins(self) -> None:
        self._change(lambda: self._store.begin(self.job))

    def report(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            told = progress.frame, progress.num_frames, progress.frames_per_second
            with _logged():
                self._store.report(self.job, *told)

    def paused(self, progress: Progress | None) -> None:
        if progress is not None:
            self._reported = 0.0
            self.report(progress)
        self._change(lambda: self._store.end(self.job, PAUSED))

    def waits(self, settings: Settings, is_last: bool = False) -> None:
        self._change(lambda: self._store.wait(self.job, kept_settings(settings), is_last))

    def changed(self, settings: Settings) -> None:
        self._change(lambda: self._store.change(self.job, kept_settings(settings)))

    def done(self) -> None:
        keep = self._keep_seconds
        self._change(lambda: self._store.end(self.job, DONE, keep_seconds=keep))

    def failed(self, error: str) -> None:
        keep = self._keep_seconds
        self._change(lambda: self._store.end(self.job, FAILED, error=error, keep_seconds=keep))

    def forget(self) -> None:
        with _logged():
            place_of(self._record.folder).unlink(missing_ok=True)
            self._store.forget(self.job)

    def jot(self) -> None:
        """Write down beside the job's folder what the list says of it now."""
        with _logged():
            jot(self._store.get(self.job))

    def _change(self, change: Callable[[], None]) -> None:
        with _logged():
            change()
        self.jot()


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except (DLoRALError, OSError, sqlite3.Error) as error:  # the last: closed at the server's end
        _log.warning("%s", error)


class Records:
    """The rows of all visitors' jobs. ``sessions``: the folder that their visits are in."""

    def __init__(self, store: JobStore, keep_seconds: float, sessions: Path) -> None:
        self._store, self._keep_seconds, self._sessions = store, keep_seconds, sessions

    def add(self, token: str, clip: ClipInfo, folder: Path, settings: Settings) -> JobRow:
        """OutputError where the list cannot be written."""
        kept = kept_settings(settings)
        record = self._store.add(token, clip.path.name, clip.path, folder, kept)
        try:
            jot(record)
        except OutputError:
            self.row(record).forget()
            raise
        return self.row(record)

    def row(self, record: JobRecord) -> JobRow:
        return JobRow(self._store, record, self._keep_seconds)

    def recover(self) -> list[JobRecord]:
        """Every job in order; those that were running wait again. What the list has lost of jobs
        is taken from what is written beside their folders. A visit has one: where a server ended
        while a new one took an old one's place, the old one is forgotten."""
        known = {record.id for record in self._store.all()}
        now = time.time()
        for record in jotted(self._sessions):
            is_over = record.expires is not None and record.expires <= now
            if record.id not in known and not is_over and is_visit(record.folder.parent):
                self._store.put(record)
        self._store.expire()
        self._store.recover()
        found = [here for one in self._store.all() if (here := self._here(one)) is not None]
        newest = {one.folder.parent: one for one in sorted(found, key=lambda one: one.created)}
        for record in found:
            if record is not newest[record.folder.parent]:
                self.forget(record)
        return [record for record in found if record is newest[record.folder.parent]]

    def _here(self, record: JobRecord) -> JobRecord | None:
        """A job of the list with its files where they are now: the whole folder may have been
        moved, copied, or given by another path. None, and forgotten, where its visit is gone."""
        before, visit = record.folder.parent, self._sessions / record.folder.parent.name
        if not is_visit(visit) or not record.source.is_relative_to(before):
            _log.warning("a job of an earlier run is given up: %s is gone", visit)
            self._store.forget(record.id)
            return None
        source, folder = visit / record.source.relative_to(before), visit / record.folder.name
        if (source, folder) != (record.source, record.folder):
            self._store.relocate(record.id, source, folder)
        return replace(record, source=source, folder=folder)

    def arrange(self, rows: Sequence[JobRow]) -> None:
        """See :meth:`dloral.jobs.store.JobStore.arrange`."""
        self._store.arrange([row.job for row in rows])
        for row in rows:
            row.jot()

    def forget(self, record: JobRecord) -> None:
        self.row(record).forget()

    def close(self) -> None:
        self._store.close()


def open_records(file: Path, keep_seconds: float, sessions: Path) -> Records:
    """The rows in ``file``. Where that is damaged it is renamed, and made anew from what is written
    beside the jobs' folders in ``sessions`` too. OutputError where it cannot be used."""
    try:
        store = JobStore(file)
    except DamagedStoreError as error:
        aside = _aside(file)
        try:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    file.with_name(file.name + suffix).rename(aside + suffix)
        except OSError:
            raise error from None
        _log.warning(
            "%s is damaged (%s): it is now %s, and the list is made anew from what is written "
            "beside the jobs",
            *(file, error.value, aside),
        )
        store = JobStore(file)
    return Records(store, keep_seconds, sessions)


def _aside(file: Path) -> str:
    """A free name for a damaged file, which may be all that is left of something."""
    names = (f"{file}.damaged{number}" for number in ("", *range(2, 1000)))
    return next(name for name in names if not Path(name).exists())


def kept_settings(settings: Settings) -> dict[str, Any]:
    """As :func:`settings_of` reads them."""
    options = settings.options
    return settings.as_dict() | {"model": options.model, "vae": options.vae}


def settings_of(record: JobRecord) -> Settings:
    """The settings that a job was started with, its model's among them."""
    kept = dict(record.settings)
    model, vae = kept.pop("model"), kept.pop("vae")
    settings = settings_from(kept, model)
    return replace(settings, options=replace(settings.options, vae=vae))


def write_result(result: Result) -> None:
    """Keep a result's facts beside its files."""
    files = (result.file, result.settings_file, result.viewer_file, result.profile_file)
    facts: dict[str, Any] = {
        "files": [file.name for file in files],
        "bytes": [file.stat().st_size for file in files],
        "times": [str(time) for time in result.times],
        "durations": [str(duration) for duration in result.durations],
        "size": result.size,
        "measures": result.measures,
        "notes": result.notes,
        "is_part": result.is_part,
        "scenes": result.settings.as_dict().get("scenes"),
    }
    part = result.file.with_name(f"{RESULT}.part")
    part.write_text(json.dumps(facts), encoding="utf-8")
    part.replace(result.file.with_name(RESULT))


def read_result(folder: Path, clip: ClipInfo, settings: Settings) -> Result | None:
    """What :func:`write_result` kept; None where it, or a file of the result, is not there or not
    whole."""
    try:
        facts = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        files = [folder / name for name in facts["files"]]
        sizes = [file.stat().st_size for file in files]
        if sizes != facts.get("bytes", sizes):
            return None
        return _result_of(facts, files, clip, settings)
    except (OSError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError) as error:
        if not isinstance(error, FileNotFoundError):
            _log.warning("a result in %s is damaged: %r", folder.name, error)
        return None


def _result_of(
    facts: dict[str, Any], files: Sequence[Path], clip: ClipInfo, settings: Settings
) -> Result:
    kept = settings.as_dict() | {"scenes": facts["scenes"]}
    found = settings_from(kept, settings.options.model)
    file, settings_file, viewer_file, profile_file = files
    height, width = facts["size"]
    return Result(
        clip=as_restored(clip, settings),
        settings=replace(settings, scenes=found.scenes),
        file=file,
        settings_file=settings_file,
        viewer_file=viewer_file,
        profile_file=profile_file,
        times=tuple(Fraction(time) for time in facts["times"]),
        durations=tuple(Fraction(duration) for duration in facts["durations"]),
        size=(height, width),
        measures=facts["measures"],
        notes=tuple(facts["notes"]),
        is_part=facts["is_part"],
    )
