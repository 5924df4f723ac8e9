"""A job as the store keeps it: its states, and one row of its table."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAITING, RUNNING, PAUSED = "waiting", "running", "paused"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)


@dataclass(frozen=True)
class JobRecord:
    """A job as it was last committed.

    ``owner``: the hash of a token. ``state``: waiting, running, paused, done, failed or cancelled.
    ``position``: order among all jobs, lower first. ``source``: the clip; ``folder``: where its
    result and its journal are. ``settings``: JSON. ``frame`` of ``num_frames`` are done, ``rate``
    of them a second. ``wish``: paused or cancelled, what the owner wants of a running job.
    ``attempts``: how often it was begun. ``result``: JSON, of a job that is done; ``error``: one
    line, of one that failed. ``created``, ``ended``, ``expires``: seconds since 1970, None until
    that is known.
    """

    id: str
    owner: str
    state: str
    position: int
    name: str
    source: Path
    folder: Path
    settings: dict[str, Any]
    frame: int
    num_frames: int | None
    rate: float
    wish: str
    attempts: int
    result: dict[str, Any] | None
    error: str
    created: float
    ended: float | None
    expires: float | None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def seconds_left(self) -> float | None:
        if self.state != RUNNING or not self.num_frames or not self.rate:
            return None
        return max(self.num_frames - self.frame, 0) / self.rate

    def as_row(self) -> dict[str, Any]:
        """The row that :func:`record_of` reads."""
        row = {name: getattr(self, name) for name in COLUMNS}
        result = None if self.result is None else json.dumps(self.result)
        return row | {
            "source": str(self.source),
            "folder": str(self.folder),
            "settings": json.dumps(self.settings),
            "result": result,
        }

    def as_dict(self) -> dict[str, Any]:
        """For a page: no paths of this machine."""
        return {
            "id": self.id,
            "state": self.state,
            "wish": self.wish,
            "name": self.name,
            "frame": self.frame,
            "frames": self.num_frames,
            "rate": self.rate,
            "left": self.seconds_left,
            "error": self.error,
            "settings": self.settings,
            "result": self.result,
            "expires": self.expires,
        }


COLUMNS = (
    *(
        "id",
        "owner",
        "state",
        "position",
        "name",
        "source",
        "folder",
        "settings",
        "frame",
        "num_frames",
    ),
    *("rate", "wish", "attempts", "result", "error", "created", "ended", "expires"),
)
"""The fields of a record, as the table names them."""


def record_of(row: dict[str, Any]) -> JobRecord:
    """A row of the table as a record; ValueError or TypeError if it is not a valid one."""
    if row["state"] not in (WAITING, RUNNING, PAUSED, *ENDED):
        raise ValueError(f"{row['state']!r} is no state")
    row["settings"] = json.loads(row["settings"])
    row["result"] = json.loads(row["result"]) if row["result"] else None
    return JobRecord(**row | {"source": Path(row["source"]), "folder": Path(row["folder"])})
