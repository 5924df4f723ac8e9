"""How fast this machine has been: what finished runs took, kept from one start to the next.

A run's time is estimated from runs like it; where there is none, from this clip's own preview.
"""

import json
import logging
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path

from dloral.options import UpscaleOptions

MOST_RUNS = 200
LIKE = 4.0
"""A run tells of frames up to so many times larger or smaller."""

NEAREST = 5
LEAST_SECONDS = 0.5
"""A run that took less says nothing of the next."""

PREVIEW_RANGE = (0.9, 1.9)
"""A part of a frame, restored alone, costs less than its share of a run: a run also decodes the
clip, writes it, writes the viewer's clip and measures. ``python -m tests.studio.bench_page
estimates``, on two cores with other programs at work: 6 of 8 runs (4 clips, 256 x 144 to 512 x 288,
5 to 10 frames) took as long as the range says; the other two 1.1 times and half as long."""

RUN_RANGE = (0.8, 1.25)
"""What runs like past ones took, by those."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """``pixels`` of an output frame, ``frames`` of them, restored and written in ``seconds``."""

    model: str
    vae: str
    window: int
    format: str
    pixels: int
    frames: int
    seconds: float

    @property
    def seconds_per_pixel(self) -> float:
        return self.seconds / (self.frames * self.pixels)


class Speeds:
    """Runs of this machine, newest last, in ``file``, where one is given. ``finished``, ``frames``:
    how many were added since the start, and their frames. Thread-safe."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self.finished = self.frames = 0  # since the start
        self._lock = threading.Lock()
        self._runs: list[Run] = list(_read(file)) if file else []

    def add(self, run: Run) -> None:
        with self._lock:
            self.finished += 1
            self.frames += run.frames
        if run.seconds < LEAST_SECONDS or run.frames < 2 or run.pixels < 1:
            return
        with self._lock:
            self._runs = [*self._runs, run][-MOST_RUNS:]
            if self._file is not None:
                _write(self._file, self._runs)

    def estimate(
        self,
        options: UpscaleOptions,
        kept_as: str,
        pixels: int,
        frames: int,
        part_cost: float | None = None,
    ) -> tuple[float, float] | None:
        """Between how many seconds a run takes; None while nothing is known. ``part_cost``:
        seconds a pixel that this clip's preview took, for runs like none before."""
        like = [
            run
            for run in self._runs
            if (run.model, run.vae, run.window) == (options.model, options.vae, options.window)
            and 1 / LIKE <= run.pixels / pixels <= LIKE
        ]
        if like:
            like.reverse()  # of equals the newest comes first
            near = sorted(
                like, key=lambda run: (run.format != kept_as, abs(log(run.pixels / pixels)))
            )[:NEAREST]
            costs = sorted(run.seconds_per_pixel for run in near)
            middle = costs[len(costs) // 2]
            least, most = RUN_RANGE
            return (
                min(least * middle, costs[0]) * pixels * frames,
                max(most * middle, min(costs[-1], 2 * middle)) * pixels * frames,
            )
        if part_cost is None:
            return None
        return tuple(share * part_cost * pixels * frames for share in PREVIEW_RANGE)  # type: ignore[return-value]


def _read(file: Path) -> Iterable[Run]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return [Run(**run) for run in found][-MOST_RUNS:]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        _log.warning("past runs in %s cannot be read (%s); they are left out", file, error)
        return []


def _write(file: Path, runs: list[Run]) -> None:
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps([asdict(run) for run in runs]), encoding="utf-8")
        part.replace(file)
    except OSError as error:  # estimates are a comfort; a run that is done stays done
        _log.warning("past runs cannot be kept in %s (%s)", file, error)
