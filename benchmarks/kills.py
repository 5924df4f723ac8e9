"""Jobs that are ended at random moments, and what the next run of the same command makes of them.

    python benchmarks/kills.py --kills 40 --seed 0

Five jobs (an MP4 with sound, lossless MKV, a folder of PNG frames, H.265, a small network with a
window of 3) are ended in mid-run: by SIGKILL of the process, of one of its workers, of a Ray
worker; by a full disk; by the kernel where memory has run out; by allocations that fail. Then the
same command runs again. A row is good if frames, times and sound are those of an unbroken run, and
neither a file nor a process is left over. What was not hit in mid-run is tried again and counts
for nothing.

Each run is a fork of this process, which has imported everything, so that forty kills take minutes.
A full disk is a small tmpfs, and memory that runs out is a cgroup (version 1): where this user may
not mount the one or make the other, those rows are left out.
"""

import argparse
import contextlib
import gc
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

_HERE = Path(__file__).parents[1]
sys.path[:0] = [str(_HERE), str(_HERE / "tests" / "support")]

from clips import frames_of, names_in, save_tiny_model, sound_of, write_clip  # noqa: E402
from endings import small_disk, table_of  # noqa: E402
from harms import (  # noqa: E402
    MemoryGroup,
    fail_allocations,
    kill_process,
    kill_worker,
    works,
)

import dloral.upscale  # noqa: E402  # so that forks need not
import dloral.weights.loading  # noqa: E402, F401
from dloral.cli import main as dloral_main  # noqa: E402
from dloral.jobs.journal import JOURNAL, journal_folder  # noqa: E402
from dloral.video.encoding import SEGMENT_FRAMES  # noqa: E402

FRAMES = 240
PROCESS, WORKER, RAY = "process", "worker", "Ray worker"
DISK, MEMORY, ALLOCATION = "full disk", "out of memory", "failed allocation"
SHARES = {PROCESS: 12, DISK: 6, MEMORY: 6, ALLOCATION: 6, WORKER: 6, RAY: 4}
"""How often of 40 each happens, the quick ones first."""

TRIES, NEVER = 20, "NEVER HIT"
PATIENCE = 60
"""Seconds without processor time after which a job hangs; one that waits for a new worker has ten
times that."""

MARK = f"kills-{os.getpid()}"
"""In the environment of every process that a job starts."""


@dataclass(frozen=True)
class Job:
    """A target's name and the rest of the command; ``frames`` of the source."""

    target: str
    options: tuple[str, ...]
    frames: int = FRAMES


JOBS = (
    Job("sound.mp4", ("--model", "bicubic")),
    Job("lossless.mkv", ("--model", "bicubic", "--codec", "ffv1")),
    Job("frames", ("--model", "bicubic")),
    Job("h265.mkv", ("--model", "bicubic", "--codec", "h265", "--start", "1")),
    Job("network.mp4", ("--model", "{model}", "--window", "3"), 150),
)


MORE = {WORKER: ("--devices", "cpu,cpu"), RAY: ("--engine", "ray")}


def run(call: list[str]) -> int:
    """Start ``dloral`` with these arguments in a fork; its process id."""
    gc.collect()  # a codec that the fork frees would wait for threads that it does not have
    gc.freeze()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        log = os.open(os.environ["KILLS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["KILLS_MARK"] = MARK
        status = dloral_main([*call, "--quiet"])
    finally:
        os._exit(status)


def has_ended(child: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    return True


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def is_possible(kind: str, folder: Path) -> bool:
    try:
        if kind == DISK:
            with small_disk(folder / "try", 1 << 20):
                return True
        if kind == MEMORY:
            with MemoryGroup(f"{MARK}-try"):
                return True
    except (OSError, subprocess.CalledProcessError):
        return False
    return kind != RAY or importlib.util.find_spec("ray") is not None


class Bench:
    """The sources, the unbroken results, and how long those took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = save_tiny_model(folder / "model")
        self.seconds: dict[Job, float] = {}
        self.whole: dict[Job, tuple] = {}
        self.needs: dict[Job, int] = {}  # bytes of segments and result together
        self.ways: dict[str, Callable[[int], bool]] = {
            PROCESS: kill_process,
            WORKER: kill_worker,
            RAY: kill_worker,
            ALLOCATION: fail_allocations,
        }
        for job in JOBS:
            write_clip(self.source(job), job.frames, 48, 32)
            target = folder / "whole" / job.target
            target.parent.mkdir(exist_ok=True)
            begun = time.monotonic()
            assert wait(run([*self.call(job, target), "--no-resume"])) == 0, job
            self.seconds[job] = time.monotonic() - begun
            self.whole[job] = self.contents(target)
            files = [target] if target.is_file() else list(target.iterdir())
            self.needs[job] = 2 * sum(file.stat().st_size for file in files)

    def source(self, job: Job) -> Path:
        return self.folder / f"{job.frames}.mp4"

    def call(self, job: Job, target: Path, *more: str) -> list[str]:
        options = [option.format(model=self.model) for option in job.options]
        call = ["upscale", str(self.source(job)), "-o", str(target), *options, *more]
        return [*call, "--scale", "2", "--device", "cpu", "--dtype", "float32"]

    @staticmethod
    def contents(target: Path) -> tuple:
        return frames_of(target), [] if target.is_dir() else sound_of(target)

    def end(self, job: Job, kind: str) -> str:
        """End the job once in mid-run, run it again, and say how that went."""
        for _ in range(TRIES):
            with contextlib.ExitStack() as stack:
                place = self.folder / "run"
                call = self.call(job, place / job.target, "--resume", *MORE.get(kind, ()))
                if kind == DISK:
                    room = random.randint(1 << 15, self.needs[job])
                    grow = stack.enter_context(small_disk(place, room))
                    stack.callback(empty, place)
                    how = "full" if wait(run(call)) else ""
                    grow(1 << 30)
                else:
                    place.mkdir()
                    stack.callback(shutil.rmtree, place)
                    how = self._hit(job, kind, call)
                if how:
                    return self._resumed(job, how)
        return NEVER

    def _hit(self, job: Job, kind: str, call: list[str]) -> str:
        """Begin the job, wait until it is at a random place, and end it; how, or nothing if it was
        not hit."""
        journal = journal_folder(self.folder / "run" / job.target) / JOURNAL
        segments = -(-job.frames // SEGMENT_FRAMES)
        after, more = random.randrange(segments - 1), random.random() * self.seconds[job] / segments
        child = run(call)
        while not has_ended(child):
            with contextlib.suppress(FileNotFoundError):
                if journal.read_text().count("sha256") >= after:
                    break
            time.sleep(0.005)
        time.sleep(more)
        while kind in (WORKER, RAY) and not has_ended(child) and not self._has_worker(child):
            time.sleep(0.01)
        if has_ended(child):
            wait(child)
            return ""
        is_hit = self.ways[kind](child)
        status = self._status(child, PATIENCE * (10 if kind in (WORKER, RAY) else 1))
        if not is_hit or (kind not in (WORKER, RAY) and not status):
            return ""
        how = {0: "went on", -9: "killed"}.get(status, f"ended with {status}")
        return f"{how} after {after} of {segments}"

    @staticmethod
    def _status(child: int, patience: float) -> int:
        """Of the job; one that hangs, as x265 may where an allocation failed, is killed: it uses no
        processor time for ``patience`` seconds. By the clock alone a busy machine would be a
        hang."""
        used, since = 0.0, time.monotonic()
        while not has_ended(child):
            with contextlib.suppress(psutil.Error):
                now = sum(psutil.Process(child).cpu_times()[:2])
                if now - used > 0.05:  # threads that wait look up now and then
                    used, since = now, time.monotonic()
            if time.monotonic() - since > patience:
                os.kill(child, signal.SIGKILL)
                break
            time.sleep(0.02)
        return wait(child)

    @staticmethod
    def _has_worker(child: int) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(map(works, psutil.Process(child).children(recursive=True)))
        return False

    def _resumed(self, job: Job, how: str) -> str:
        place = self.folder / "run"
        target = place / job.target
        if not target.exists() and wait(run(self.call(job, target, "--resume"))):
            return f"{how}, NOT RESUMED"
        faults = []
        faults += difference(self.contents(target), self.whole[job])
        if names_in(place) != [job.target]:
            faults.append(f"LEFT {names_in(place)}")
        if alive := still_running():
            faults.append(f"RUNNING {alive}")
        return f"{how}, " + (", ".join(faults) or "equal")


def difference(found: tuple, wanted: tuple) -> list[str]:
    """What of a result is not as in the unbroken run's, and from where on."""
    faults = []
    for name, these, those in zip(("FRAMES", "SOUND"), found, wanted, strict=True):
        if len(these) != len(those):
            faults.append(f"{len(these)} {name} INSTEAD OF {len(those)}")
        pairs = enumerate(zip(these, those, strict=False))
        others = [index for index, (one, other) in pairs if one != other]
        if others:
            faults.append(f"{len(others)} OTHER {name}, FIRST {others[0]}")
    return faults


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def still_running() -> list[str]:
    """Processes that a job left, after a minute to end in: Ray's agents look for its end now and
    then."""
    for _ in range(120):
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("KILLS_MARK") == MARK and process.pid != os.getpid():
                    found.append(process.name())
        if not found:
            break
        time.sleep(0.5)
    return found


def chosen_kinds(kills: int, folder: Path) -> list[str]:
    """As often as :data:`SHARES` says."""
    able = {kind: share for kind, share in SHARES.items() if is_possible(kind, folder)}
    for kind in SHARES.keys() - able.keys():
        print(f"left out, since it cannot be done here: {kind}")
    kinds: list[str] = []
    while len(kinds) < kills:
        kinds += [kind for kind, share in able.items() for _ in range(share)]
    if kills < sum(able.values()):
        return sorted(random.sample(kinds, kills), key=list(SHARES).index)
    return kinds[:kills]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(SHARES), help="one way to end a job")
    parser.add_argument("--job", choices=[job.target for job in JOBS], help="one job")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that mounts and groups go
    random.seed(options.seed)
    torch.set_num_threads(1)
    rows: Counter[tuple[str, str, str]] = Counter()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dloral-kills-")))
        os.environ["KILLS_LOG"] = str(folder / "log")
        jobs = [job for job in JOBS if options.job in (None, job.target)]
        kinds = [options.only] * options.kills if options.only else None
        kinds = kinds or chosen_kinds(options.kills, folder)
        bench = Bench(folder)
        if is_possible(MEMORY, folder):
            bench.ways[MEMORY] = stack.enter_context(MemoryGroup(MARK)).take
        for index, kind in enumerate(kinds):
            job = jobs[index % len(jobs)]
            begun = time.monotonic()
            outcome = bench.end(job, kind)
            if outcome == NEVER and kind == ALLOCATION and MEMORY in bench.ways:
                kind = MEMORY  # an encoder that lives on what it freed
                outcome = bench.end(job, kind)
            rows[job.target, kind, outcome] += 1
            took = time.monotonic() - begun
            print(f"{index + 1:3} {job.target:14}{kind:19}{took:4.0f} s  {outcome}", flush=True)
        log = Path(folder, "log").read_text()
    good = sum(times for (*_, how), times in rows.items() if how.endswith("equal"))
    print(f"\n{table_of(rows, [job.target for job in JOBS], list(SHARES))}")
    print(f"\n{good} of {len(kinds)} hit in mid-run and equal")
    print(f"tracebacks: {log.count('Traceback')}; what the jobs said:")
    said = {line for line in log.splitlines() if line.startswith(("dloral:", "x265 [error]"))}
    print(*sorted({line.replace(str(folder), "...") for line in said}), sep="\n")
    return good < len(kinds)


if __name__ == "__main__":
    raise SystemExit(main())
