"""One job by every engine: whether the results are equal, and what sharing the work costs.

    python benchmarks/engines.py --frames 480

The same clip is restored by this process, by 1, 2 and 4 processes (``--devices``), by two that
``accelerate launch`` starts, and by Ray with 2 and 4 workers on this machine; of several workers
one is killed in mid-run. Costs are of processor time between the first segment and the last, so
that neither the start of workers nor others who use the machine count.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_HERE = Path(__file__).parents[1]
sys.path[:0] = [str(_HERE), str(_HERE / "tests" / "support")]

from clips import frames_of, names_in, sound_of, write_clip  # noqa: E402

from dloral import UpscaleOptions, load_pipeline, upscale_video  # noqa: E402
from dloral.engines.devices import DevicesEngine  # noqa: E402
from dloral.jobs.progress import Progress  # noqa: E402
from dloral.jobs.running import Engine  # noqa: E402
from dloral.jobs.spans import restore_span  # noqa: E402
from dloral.video.encoding import SEGMENT_FRAMES  # noqa: E402
from dloral.video.probe import probe  # noqa: E402

MARK = f"engines-{os.getpid()}"


def workers_of_mine() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            is_worker = "spawn_main" in line or "ray::_restore" in line or "ray::IDLE" in line
            if is_worker and process.environ().get("ENGINES_MARK") == MARK:
                found.append(process)
    return found


def used(processes: list[psutil.Process]) -> float:
    """Seconds of processor time, ours among them."""
    total = time.process_time()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@dataclass
class Watch:
    """Looks at a job's progress: processor time a frame, and kills one worker on the way. What
    looking costs is taken off."""

    kill: bool
    killed: int = 0
    looked: float = 0.0
    seen: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        if progress.stage != "restoring" or not progress.frame:  # workers are still starting
            return
        begun = time.process_time()
        workers = workers_of_mine()
        self.seen.append((progress.frame, used(workers) - self.looked))
        self.looked += time.process_time() - begun
        if self.kill and not self.killed:
            for process in workers:
                if process.name() != "ray::IDLE":
                    process.kill()
                    self.killed = process.pid
                    self.seen.clear()  # what the killed one used is not seen any more
                    break

    @property
    def seconds_a_frame(self) -> float | None:
        if len(self.seen) < 2:
            return None
        (first, begun), (last, ended) = self.seen[0], self.seen[-1]
        return (ended - begun) / max(last - first, 1)


@contextlib.contextmanager
def ray_of(workers: int) -> Iterator[Engine]:
    import ray

    from dloral.engines.cluster import RayEngine

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield RayEngine()
    finally:
        ray.shutdown()


class Bench:
    def __init__(self, folder: Path, frames: int, model: str) -> None:
        self.folder = folder
        self.source = write_clip(folder / "in.mp4", frames, 64, 64)
        self.frames = frames
        self.options = UpscaleOptions(model, scale=1, device="cpu", dtype="float32", resume=True)
        self.pipe = load_pipeline(model, "cpu", "float32")
        begun = time.process_time()
        whole = upscale_video(self.source, folder / "whole.mp4", self.options, pipe=self.pipe)
        self.direct = (time.process_time() - begun) / frames
        self.contents = frames_of(whole), sound_of(whole)
        self.bytes = whole.read_bytes()
        print(f"this process: {1000 * self.direct:.1f} ms of processor time a frame")

    def spans(self) -> None:
        """What another span costs: the same frames in one and in many."""
        clip = probe(self.source)
        count = self.frames // SEGMENT_FRAMES
        last = count * SEGMENT_FRAMES - 1

        def run(ranges: list[tuple[int, int]]) -> float:
            begun = time.process_time()
            for first, end in ranges:
                for _ in restore_span(clip, first, end, self.options, self.pipe):
                    pass
            return time.process_time() - begun

        many = [(at, at + SEGMENT_FRAMES - 1) for at in range(0, last, SEGMENT_FRAMES)]
        cost = (run(many) - run([(0, last)])) / (count - 1)
        print(
            f"a span more: {1000 * cost:.0f} ms, {cost / self.direct:.1f} frames' worth: "
            f"{100 * cost / self.direct / (8 * SEGMENT_FRAMES):.1f}% of a task of 8 segments"
        )

    def by(self, name: str, workers: int, engine: Engine) -> None:
        target = self.folder / "out" / f"{name}-{workers}.mp4"
        watch = Watch(kill=workers > 1)
        begun = time.monotonic()
        upscale_video(self.source, target, self.options, watch, engine=engine)
        took = time.monotonic() - begun
        self.show(name, workers, target, took, watch)

    def show(
        self, name: str, workers: int, target: Path, took: float, watch: Watch | None = None
    ) -> None:
        is_equal = (frames_of(target), sound_of(target)) == self.contents
        said = "equal" if is_equal else "OTHER FRAMES OR SOUND"
        said += ", to the byte" if target.read_bytes() == self.bytes else ""
        if names_in(target.parent) != [target.name]:
            said += f", LEFT {names_in(target.parent)}"
        cost = watch.seconds_a_frame if watch else None
        share = f"{100 * self.direct / cost:.0f}%" if cost else ""
        killed = "one killed" if watch and watch.killed else ""
        print(f"| {name} | {workers} | {killed} | {said} | {took:.0f} s | {share} |", flush=True)
        target.unlink()

    def launched(self) -> None:
        target = self.folder / "out" / "launched.mp4"
        launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
        call = [sys.executable, *launcher, "-m", "dloral", "upscale", str(self.source)]
        options = ["--model", self.options.model, "--scale", "1", "--device", "cpu"]
        call += ["-o", str(target), *options, "--dtype", "float32", "--quiet"]
        begun = time.monotonic()
        subprocess.run(call, check=True, cwd=_HERE, capture_output=True)
        self.show("accelerate launch", 2, target, time.monotonic() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=480)
    parser.add_argument("--model", default="compact")
    options = parser.parse_args()
    os.environ["ENGINES_MARK"] = MARK
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="dloral-engines-") as name:
        bench = Bench(Path(name), options.frames, options.model)
        (Path(name) / "out").mkdir()
        bench.spans()
        print("\n| engine | workers | | result | time | efficiency |\n|---|---|---|---|---|---|")
        for workers in (1, 2, 4):
            bench.by("devices", workers, DevicesEngine(["cpu"] * workers))
        bench.launched()
        for workers in (2, 4):
            with ray_of(workers) as engine:
                bench.by("Ray", workers, engine)


if __name__ == "__main__":
    main()
