"""What of the visitors' jobs outlives the server: their rows in the store, their results' facts.

A job's folder keeps its journal (:mod:`dloral.jobs.journal`), so a job that was running when the
server ended, however that was, goes on from its last segment when the next one starts.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from dloral.errors import OutputError
from dloral.jobs.records import DONE, FAILED, PAUSED, JobRecord
from dloral.jobs.store import JobStore
from dloral.studio.settings import Settings, as_restored, settings_from
from dloral.upscale import Progress
from dloral.video.probe import ClipInfo

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
        """Whether nobody took its files away, such as what tidies a disk up."""
        return self.file.is_file() and self.viewer_file.is_file()


class JobRow:
    """One job's row. ``keep_seconds``: how long a result is kept."""

    def __init__(self, store: JobStore, job: str, keep_seconds: float) -> None:
        self._store, self.job, self._keep_seconds = store, job, keep_seconds
        self._reported = 0.0

    def begins(self) -> None:
        self._store.begin(self.job)

    def report(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            rate = progress.frames_per_second
            with suppress(OutputError):  # the journal knows; a list that is behind is no failure
                self._store.report(self.job, progress.frame, progress.num_frames, rate)

    def paused(self, progress: Progress | None) -> None:
        if progress is not None:
            self._reported = 0.0
            self.report(progress)
        self._store.end(self.job, PAUSED)

    def waits(self, settings: Settings, is_last: bool = False) -> None:
        self._store.wait(self.job, kept_settings(settings), is_last)

    def changed(self, settings: Settings) -> None:
        self._store.change(self.job, kept_settings(settings))

    def done(self) -> None:
        self._store.end(self.job, DONE, keep_seconds=self._keep_seconds)

    def failed(self, error: str) -> None:
        self._store.end(self.job, FAILED, error=error, keep_seconds=self._keep_seconds)

    def forget(self) -> None:
        self._store.forget(self.job)


class Records:
    """The rows of all visitors' jobs."""

    def __init__(self, store: JobStore, keep_seconds: float) -> None:
        self._store, self._keep_seconds = store, keep_seconds

    def add(self, token: str, clip: ClipInfo, folder: Path, settings: Settings) -> JobRow:
        kept = kept_settings(settings)
        row = self._store.add(token, clip.path.name, clip.path, folder, kept)
        return self.row(row)

    def row(self, record: JobRecord) -> JobRow:
        return JobRow(self._store, record.id, self._keep_seconds)

    def recover(self) -> list[JobRecord]:
        """Every job in order; those that were running wait again."""
        self._store.expire()
        self._store.recover()
        return self._store.all()

    def arrange(self, rows: Sequence[JobRow]) -> None:
        """See :meth:`dloral.jobs.store.JobStore.arrange`."""
        self._store.arrange([row.job for row in rows])

    def forget(self, record: JobRecord) -> None:
        self._store.forget(record.id)

    def close(self) -> None:
        self._store.close()


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
    facts: dict[str, Any] = {
        "files": [
            file.name
            for file in (result.file, result.settings_file, result.viewer_file, result.profile_file)
        ],
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
    """What :func:`write_result` kept; None where it, or a file of the result, is not there."""
    try:
        facts = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    files = [folder / name for name in facts["files"]]
    if not all(file.is_file() for file in files):
        return None
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
