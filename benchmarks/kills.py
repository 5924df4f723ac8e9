"""Jobs that are ended at random moments, and what the next run of the same command makes of them.

    python benchmarks/kills.py --kills 40 --seed 0

Five jobs (an MP4 with sound, lossless MKV, a folder of PNG frames, H.265, a small network with a
window of 3) are ended by SIGKILL of the process or of one of its workers, by a full disk, and by a
limit on memory. Then the same command runs again. A row of the table is good if frames, times and
sound are those of an unbroken run, and neither a file nor a process is left over.

Each run is a fork of this process, which has imported everything, so that forty kills take minutes.
A full disk is a small tmpfs, which needs the right to mount; without it that row is left out.
"""

import argparse
import contextlib
import gc
import os
import random
import resource
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

import dloral.upscale  # noqa: E402  # so that forks need not
import dloral.weights.loading  # noqa: E402, F401
from dloral.cli import main as dloral_main  # noqa: E402

FRAMES = 240
PROCESS, WORKER, RAY, DISK, MEMORY = "process", "worker", "Ray worker", "full disk", "memory limit"


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


def run(call: list[str], before: Callable[[], None] | None = None) -> int:
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
        if before is not None:
            before()
        status = dloral_main([*call, "--quiet"])
    finally:
        os._exit(status)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def has_ended(child: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    return True


def kill_process(call: list[str], seconds: float) -> str:
    child = run(call)
    time.sleep(seconds)
    done = has_ended(child)
    os.kill(child, signal.SIGKILL)
    wait(child)
    return "ended before" if done else "killed"


def kill_worker(call: list[str], seconds: float) -> str:
    """SIGKILL of a worker: the job itself goes on with a new one, or is told to be run again."""
    child = run(call)
    deadline, found = time.monotonic() + 120, []
    while not found and not has_ended(child) and time.monotonic() < deadline:
        time.sleep(0.05)
        found = [one for one in psutil.Process(child).children(recursive=True) if _works(one)]
    if found:
        time.sleep(seconds)
        with contextlib.suppress(psutil.NoSuchProcess):
            random.choice(found).kill()
    wait(child)
    return "killed" if found else "ended before"


def _works(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        line = " ".join(process.cmdline())
        return "ray::_restore" in line or ("spawn_main" in line and process.cpu_times().user > 2)
    return False


def limit_memory(call: list[str], more: int) -> str:
    """The address space may grow by ``more`` bytes over what the imports take."""

    def limit() -> None:
        most = psutil.Process().memory_info().vms + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return "out of memory" if wait(run(call, limit)) else "ended before"


@contextlib.contextmanager
def small_disk(folder: Path, size: int):
    """``folder`` with room for ``size`` bytes; a function that gives it more."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield lambda: subprocess.run(
            ["mount", "-o", "remount,size=1g", str(folder)], check=True, capture_output=True
        )
    finally:
        subprocess.run(["umount", str(folder)], check=False)
        folder.rmdir()


def may_mount() -> bool:
    try:
        with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk", 1 << 20):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


class Bench:
    """The sources, the unbroken results, and how long those took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = save_tiny_model(folder / "model")
        self.seconds: dict[Job, float] = {}
        self.whole: dict[Job, tuple] = {}
        for job in JOBS:
            write_clip(self.source(job), job.frames, 48, 32)
            target = folder / "whole" / job.target
            target.parent.mkdir(exist_ok=True)
            begun = time.monotonic()
            assert wait(run([*self.call(job, target), "--no-resume"])) == 0, job
            self.seconds[job] = time.monotonic() - begun
            self.whole[job] = self.contents(target)

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
        """End the job once, run it again, and say how that went."""
        place = self.folder / "run"
        target = place / job.target
        more = {WORKER: ("--devices", "cpu,cpu"), RAY: ("--engine", "ray")}.get(kind, ())
        call = self.call(job, target, "--resume", *more)
        moment = random.random() * self.seconds[job]
        with contextlib.ExitStack() as stack:
            if kind == DISK:
                size = 1 << random.randint(16, 18)
                grow = stack.enter_context(small_disk(place, size))
                how = "disk full" if wait(run(call)) else "ended before"
                grow()
            else:
                place.mkdir()
                stack.callback(shutil.rmtree, place)
                if kind == PROCESS:
                    how = kill_process(call, moment)
                elif kind == MEMORY:
                    how = limit_memory(call, random.randint(20, 120) << 20)
                else:
                    how = kill_worker(call, moment)
            if not target.exists() and wait(run(self.call(job, target, "--resume"))):
                return f"{how}, NOT RESUMED"
            faults = []
            if self.contents(target) != self.whole[job]:
                faults.append("OTHER FRAMES OR SOUND")
            if names_in(place) != [job.target]:
                faults.append(f"LEFT {names_in(place)}")
            if alive := [one for one in psutil.process_iter(["cmdline"]) if self._is_ours(one)]:
                faults.append(f"RUNNING {alive}")
        return f"{how}, " + (", ".join(faults) or "equal")

    def _is_ours(self, process: psutil.Process) -> bool:
        line = " ".join(process.info["cmdline"] or ())
        return "spawn_main" in line and process.ppid() in (1, os.getpid())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ray", type=int, default=0, help="how many of them of a Ray worker")
    parser.add_argument("--workers", type=int, default=4, help="how many of them of a worker")
    options = parser.parse_args()
    random.seed(options.seed)
    torch.set_num_threads(1)
    kinds = [RAY] * options.ray + [WORKER] * options.workers
    usual = [PROCESS, PROCESS, MEMORY, *([DISK] if may_mount() else [])]
    while len(kinds) < options.kills:
        kinds.append(usual[len(kinds) % len(usual)])
    table: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="dloral-kills-") as folder:
        os.environ["KILLS_LOG"] = str(Path(folder) / "log")
        bench = Bench(Path(folder))
        for index, kind in enumerate(kinds):
            job = JOBS[index % len(JOBS)]
            outcome = bench.end(job, kind)
            table[job.target, kind, outcome] += 1
            print(f"{index + 1:3} {job.target:14}{kind:14}{outcome}", flush=True)
        log = Path(folder, "log").read_text()
    print("\n| job | ended by | outcome | times |\n|---|---|---|---|")
    for (target, kind, outcome), times in sorted(table.items()):
        print(f"| {target} | {kind} | {outcome} | {times} |")
    bad = sum(times for (*_, how), times in table.items() if not how.endswith("equal"))
    print(f"\n{len(kinds) - bad} of {len(kinds)} equal; tracebacks: {log.count('Traceback')}")
    print(*sorted({line for line in log.splitlines() if line.startswith("dloral:")}), sep="\n")
    return bad > 0


if __name__ == "__main__":
    raise SystemExit(main())
