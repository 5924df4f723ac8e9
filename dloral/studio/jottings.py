"""A record of each job beside its folder, so that a damaged list of jobs loses none.

``VISIT/JOB.job`` for the job in ``VISIT/JOB/``. Nothing that a visitor sends is stored under such a
name, so nobody can forge a job.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dloral.errors import OutputError
from dloral.files import write_json
from dloral.jobs.records import JobRecord, record_of

SUFFIX = ".job"

_log = logging.getLogger(__name__)


def place_of(folder: Path) -> Path:
    """The file for the job in ``folder``."""
    return folder.with_name(folder.name + SUFFIX)


def jot(record: JobRecord) -> None:
    """Record what the list says about a job. OutputError where it cannot be written."""
    inside = record.folder.parent
    row = replace(record, folder=Path(record.folder.name)).as_row()
    if record.source.is_relative_to(inside):  # so that the folder of all may be moved
        row["source"] = str(record.source.relative_to(inside))
    write_json(place_of(record.folder), row)


def jotted(sessions: Path) -> Iterator[JobRecord]:
    """Every job recorded below ``sessions``; unreadable records are skipped."""
    for file in sorted(sessions.glob(f"*/*{SUFFIX}")):
        try:
            record = record_of(json.loads(file.read_text(encoding="utf-8")))
            yield replace(
                record,
                source=file.parent / record.source,
                folder=file.with_name(file.name.removesuffix(SUFFIX)),
            )
        except (OSError, ValueError, TypeError, LookupError, OutputError) as error:
            _log.warning("the record of a job cannot be read: %s", error)
