"""How long a run will take, from what is known of this machine and this clip.

Two things decide: how much processor time the work needs, and how much of the processor it gets.
The first changes little between runs and is known from past runs, or this clip's own preview. The
second changes with whatever else the machine does and is taken from the latest restoring. Where
the work is done elsewhere (a GPU, another process) only wall-clock time counts.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import exp, log, sqrt
from pathlib import Path

from dloral.frames.resize import LATENT_STRIDE
from dloral.frames.tiles import tiles_of
from dloral.jobs.spans import chosen_tile
from dloral.options import AUTO_TILE, UpscaleOptions

MOST_RUNS = 200
LIKE = 4.0
"""A run tells of frames up to so many times larger or smaller."""

NEAREST = 5
LEAST_SECONDS = 0.5
"""A run that took less says nothing of the next."""

TILED_SHARE = 0.65
"""Of the compact model's work on a frame, what is done in tiles: retrieval and the UNet. The VAE
and the files see each pixel once."""

PAIRS_SHARE = 0.3
"""What retrieval, which compares all cells of a tile, adds to the work in a tile of AUTO_TILE cells
a side. Fitted, as TILED_SHARE, to the processor seconds of runs from 256 x 144 to 1024 x 768."""

RUN_SHARE = 0.95
"""Processor time that a pixel of a run needs, by what it needs in a preview: a run decodes, writes,
writes the viewer's clip and measures; a preview encodes the frame before, which a run has."""

FIXED_SECONDS = 0.4
"""Of the processor: opening the clip, and the files' ends."""

FIRST_FRAMES = 0.9
"""The first frame takes longer, and the last ones come late from the encoders: frames more."""

RUN_ERROR, PREVIEW_ERROR = 0.12, 0.25
"""How far the work that past runs and a preview tell is off, as a share, on a machine at rest."""

RECENT_SECONDS = 120
"""How long a measured pace tells of now."""

RETURNING = 0.25
"""Other programs come and go: a machine that is slower now than at its best will be so for a while
only. In logarithms, how far towards its best it is expected; the range is wider by as much."""

MOST_PACES = 40
LEAST_PROCESSOR = 0.02
"""Below this share of the clock the work is done elsewhere."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Effort:
    """``seconds`` by the clock, and ``processor`` seconds that all threads here had in them."""

    seconds: float
    processor: float

    @property
    def pace(self) -> float:
        """Processor seconds a second; 1 where the work is done elsewhere."""
        pace = self.processor / max(self.seconds, 1e-9)
        return pace if pace >= LEAST_PROCESSOR else 1.0

    @property
    def work(self) -> float:
        """In seconds at a pace of 1."""
        return self.seconds * self.pace

    def __add__(self, other: "Effort") -> "Effort":
        return Effort(self.seconds + other.seconds, self.processor + other.processor)


class Watch:
    """A stopwatch that runs from its creation."""

    def __init__(self) -> None:
        self._started, self._processor = time.monotonic(), time.process_time()

    @property
    def effort(self) -> Effort:
        return Effort(time.monotonic() - self._started, time.process_time() - self._processor)


@dataclass(frozen=True)
class Run:
    """A finished run: ``pixels`` of an output frame, ``frames`` of them, restored and written in
    ``seconds``; ``work``: :func:`work_of` all frames; ``processor``: seconds, None where nobody
    counted them."""

    model: str
    vae: str
    window: int
    format: str
    pixels: int
    frames: int
    seconds: float
    work: float | None = None
    processor: float | None = None

    @property
    def effort(self) -> Effort:
        known = self.seconds if self.processor is None else self.processor
        return Effort(self.seconds, known)

    @property
    def cost(self) -> float:
        """Seconds at a pace of 1 for each unit of work."""
        work = self.pixels * (self.frames + FIRST_FRAMES) if self.work is None else self.work
        return max(self.effort.work - FIXED_SECONDS, 0.1 * self.effort.work) / work


class Speeds:
    """Runs of this machine, newest last, in ``file``, where one is given, and its pace.
    ``finished``, ``frames``: how many runs were added since the start, and their frames.
    Thread-safe."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self.finished = self.frames = 0  # since the start
        self._lock = threading.Lock()
        self._runs: list[Run] = list(_read(file)) if file else []
        self._paces: deque[tuple[float, Effort]] = deque(maxlen=MOST_PACES)

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

    def paced(self, effort: Effort, now: float | None = None) -> None:
        """Something was restored just ``now``."""
        with self._lock:
            self._paces.append((time.monotonic() if now is None else now, effort))

    def pace(self, now: float | None = None) -> tuple[float, float] | None:
        """Processor seconds a second that are expected of the next minutes, and how far off that
        may be (as a share); None where nothing was restored since the start. What is older than
        RECENT_SECONDS counts only where there is nothing newer."""
        now = time.monotonic() if now is None else now
        with self._lock:
            seen = list(self._paces)
            past = [run.effort.pace for run in self._runs[-NEAREST:]]
        if not seen:
            return None
        recent = [effort for when, effort in seen if now - when <= RECENT_SECONDS]
        recent = recent or [seen[-1][1]]
        middle = sum(recent, Effort(0, 0)).pace
        off = [(log(effort.pace / middle) ** 2, effort.seconds) for effort in recent]
        spread = (sum(o * s for o, s in off) / max(sum(s for _, s in off), 1e-9)) ** 0.5
        best = max([effort.pace for _, effort in seen] + past)
        rising = RETURNING * log(best / middle)
        is_old = now - seen[-1][0] > RECENT_SECONDS
        off_by = (spread**2 + rising**2 + (0.3 if is_old else 0) ** 2) ** 0.5
        return middle * exp(rising), min(1.0, off_by)

    def estimate(
        self,
        options: UpscaleOptions,
        kept_as: str,
        size: tuple[int, int],
        frames: int,
        part_cost: float | None = None,
        is_elsewhere: bool = False,
    ) -> tuple[float, float] | None:
        """Between how many seconds a run takes that makes ``frames`` of ``size`` (height, width);
        None while nothing is known. ``part_cost``: seconds at a pace of 1 for each unit of work
        that this clip's preview took, for runs like none before. ``is_elsewhere``: what else this
        machine does is no matter."""
        pixels = size[0] * size[1]
        near = self._nearest(options, kept_as, pixels)
        if near:
            costs = sorted(run.cost for run in near)
            cost = costs[len(costs) // 2]
            error = max(RUN_ERROR, _spread(costs))
        elif part_cost is not None:
            cost, error = RUN_SHARE * part_cost, PREVIEW_ERROR
        else:
            return None
        found = (1.0, RUN_ERROR) if is_elsewhere else self.pace()
        if found is None:  # nothing yet since the start: as it was in those runs
            paces = sorted(run.effort.pace for run in near) or [1.0]
            found = paces[len(paces) // 2], max(0.3, _spread(paces))
        pace, varied = found
        work = work_of(options, size) * (frames + FIRST_FRAMES)
        seconds = (FIXED_SECONDS + cost * work) / pace
        # independent of each other; a varying pace evens out in a long run
        steady = varied / max(1.0, seconds / 30) ** 0.5
        off = min(0.8, (error**2 + steady**2) ** 0.5)
        return seconds * exp(-off), seconds * exp(off)

    def _nearest(self, options: UpscaleOptions, kept_as: str, pixels: int) -> list[Run]:
        with self._lock:
            runs = self._runs
        like = [
            run
            for run in reversed(runs)  # of equals the newest comes first
            if (run.model, run.vae, run.window) == (options.model, options.vae, options.window)
            and 1 / LIKE <= run.pixels / pixels <= LIKE
        ]
        return sorted(like, key=lambda r: (r.format != kept_as, abs(log(r.pixels / pixels))))[
            :NEAREST
        ]


def work_of(options: UpscaleOptions, size: tuple[int, int]) -> float:
    """The work on one frame of ``size``, in pixels of a large frame that is seen in one small
    tile: tiles overlap, and in large ones each cell is compared with more."""
    height, width = (-(-side // LATENT_STRIDE) for side in size)
    tiles = tiles_of(height, width, chosen_tile(options), options.tile_overlap)
    rows, columns = (side.stop - side.start for side in tiles[0])
    overlapping = len(tiles) * rows * columns / (height * width)
    pairs = 1 + PAIRS_SHARE * rows * columns / (AUTO_TILE * AUTO_TILE)
    share = float(1 - TILED_SHARE + TILED_SHARE * overlapping * pairs)
    return size[0] * size[1] * share


class Forecast:
    """How long a run still takes: first by its estimate, then more and more by its own frames.

    ``estimate``: between how many seconds, None where nothing was known. Times are of one clock.
    """

    def __init__(self, frames: int | None, estimate: tuple[float, float] | None) -> None:
        self._frames, self._estimate = frames, estimate
        self._done = 0
        self._first: int | None = None
        self._last: float | None = None
        self._seconds = self._weight = self._all = 0.0
        self._taken: list[float] = []

    def frame(self, done: int, now: float) -> None:
        """``done`` frames are restored at ``now``."""
        self._first = done if self._first is None else self._first
        new = done - self._done
        if self._last is not None and new > 0:
            each = (now - self._last) / new
            self._taken.append(each)
            # later frames count more: what else the machine does changes
            fading = exp(-new / max(8.0, done / 3))
            self._seconds = fading * self._seconds + (1 - fading) * each
            self._weight = fading * self._weight + (1 - fading)
        self._done, self._last = done, now

    @property
    def is_of_all(self) -> bool:
        """Whether the run began with its first frame."""
        return self._first == 1

    def left(self, now: float) -> tuple[float, float] | None:
        """Between how many seconds it still takes; None where nobody knows."""
        if self._frames is None:
            return None
        planned = None
        if self._estimate is not None:
            planned = sum(self._estimate) / 2 / (self._frames + FIRST_FRAMES)
        seen = len(self._taken)
        if not seen and planned is None:
            return None
        trust = seen / (seen + PLANNED_FRAMES) if planned is not None else 1.0
        each = (1 - trust) * (planned or 0.0)
        if seen:
            each += trust * self._seconds / self._weight
        left = each * (self._frames - self._done + LAST_FRAMES)
        waited = 0.0 if self._last is None else min(now - self._last, each)
        off = self._error(trust)
        left = max(left - waited, 0.0)
        return left * exp(-off), left * exp(off)

    def _error(self, trust: float) -> float:
        """The error of the remaining time, as a fraction."""
        planned = 0.4
        if self._estimate is not None and self._estimate[0] > 0:
            planned = log(self._estimate[1] / self._estimate[0]) / 2
        if not self._taken:
            return planned
        middle = sum(self._taken) / len(self._taken)
        drift = abs(log(max(self._seconds / self._weight, 1e-9) / max(middle, 1e-9)))
        own = max(0.05, drift, 0.3 / sqrt(len(self._taken)))
        return min(0.8, (1 - trust) * planned + trust * own)


PLANNED_FRAMES = 1.0
"""How many of a run's own frames its estimate counts as."""

LAST_FRAMES = 0.3
"""What comes after the last frame, in frames."""


def _spread(values: list[float]) -> float:
    """How far sorted values are from their median, as a fraction."""
    middle = values[len(values) // 2]
    return sqrt(sum(log(value / middle) ** 2 for value in values) / len(values))


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
    except OSError as error:  # estimates are optional; a finished run stays finished
        _log.warning("past runs cannot be kept in %s (%s)", file, error)
