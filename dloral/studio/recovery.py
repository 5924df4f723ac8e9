"""Recovery after an earlier server, however it ended: its jobs resume, all else is removed."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from dloral.errors import DLoRALError, ResourceError
from dloral.jobs.records import DONE, WAITING, JobRecord
from dloral.studio.jottings import place_of
from dloral.studio.models import Models
from dloral.studio.records import JobRow, Records, Result, read_result, settings_of
from dloral.studio.runtime import Model
from dloral.studio.settings import Settings
from dloral.video.probe import ClipInfo, probe

_log = logging.getLogger(__name__)


PATIENCE = 10
"""Times as long as a file may usually take by the clock to be looked at. These were looked at
before, so it is the machine that is slow; what they may take of the processor stays the same."""


@dataclass(frozen=True)
class EarlierJob:
    """What an earlier server left of a job. ``record``: what its list says, ``row``: where it does;
    ``result``: of one that is done."""

    clip: ClipInfo
    settings: Settings
    model: Model
    row: JobRow
    record: JobRecord
    result: Result | None


class Visit(Protocol):
    """What takes up a job: a :class:`~dloral.studio.sessions.Session`."""

    folder: Path

    def take_up(self, earlier: EarlierJob) -> None: ...


AnyVisit = TypeVar("AnyVisit", bound=Visit)


def recovered(
    records: Records,
    models: Models,
    earlier: Sequence[Path],
    new_session: Callable[[Path], AnyVisit],
) -> Iterator[tuple[str, AnyVisit]]:
    """The owners' hashes and the sessions of all jobs of ``records``, in the order they had.

    ``earlier``: the folders of visits that were there when this server began, and nothing else
    that lies beside them. Those without a job go, and in the others what is neither the clip nor
    the job's. A job that this machine has no time, memory or disk for now is kept for the next
    server, as one that has failed.
    """
    known: dict[tuple[str, str], Model] = {}
    kept = set()
    for record in records.recover():
        try:
            options = settings_of(record).options
            key = (options.model, options.vae)
            if key not in known:
                known[key] = models.again(*key)
            session = new_session(record.folder.parent)
            session.take_up(_earlier_job(record, known[key], records))
        except ResourceError as error:
            _log.warning("a job of an earlier run is left to the next one: %s", error)
            records.row(record).failed(str(error))
            kept.add(record.folder.parent)
            continue
        except (DLoRALError, OSError, ValueError, TypeError, LookupError) as error:
            _log.warning("a job of an earlier run is given up: %s", error)
            records.forget(record)
            continue
        kept.add(session.folder)
        _tidy(session.folder, record)
        yield record.owner, session
    for folder in earlier:
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _earlier_job(record: JobRecord, model: Model, records: Records) -> EarlierJob:
    """The job as it is to go on: it waits again, or has ended. InputError and the like where its
    clip is not there."""
    clip = probe(record.source, isolated=True, patience=PATIENCE)
    settings = settings_of(record)
    # Of any job: a server whose list could not be written has not said that it is done.
    result = read_result(record.folder, clip, settings)
    if result is None and record.state == DONE:  # damaged, or taken away: it is made once more
        record = replace(record, state=WAITING, frame=0)
    row = records.row(record)
    if result is None and record.state == WAITING:
        row.waits(settings)
    return EarlierJob(clip, settings, model, row, record, result)


def _tidy(folder: Path, record: JobRecord) -> None:
    """Remove all but the clip and the job: interrupted uploads, earlier clips, partial motion."""
    ours = {record.source.parent, record.folder, place_of(record.folder)}
    for path in folder.iterdir():
        if path in ours:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
