"""Runtimes beside each other, frame by frame in one process, so that a machine's load meets all
alike: ``python -m benchmarks.runtimes --size 128x128``. With AVX2 alone, as far as a library
listens (torch and OpenVINO do, ONNX Runtime does not): ``ONEDNN_MAX_CPU_ISA=AVX2`` before it.

For each runtime: milliseconds of a frame and of its stages, the picture after a move of a dial, the
processor time of both in all threads, and PSNR against torch's frames in the same precision.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dloral.bench.run import WARM_UP, machine
from dloral.frame_generator import FrameGenerator
from dloral.frames.resize import resize_bicubic
from dloral.options import TORCH
from dloral.packages import missing_modules
from dloral.runtimes.backends import BACKENDS
from dloral.runtimes.choice import agreement
from dloral.runtimes.compiled import CompiledGenerator
from dloral.runtimes.graphs import graphs_of
from dloral.stages import watched_by
from dloral.weights.loading import load_pipeline


class Times:
    """Seconds by the clock (``stages``) and of the processor (``processor``), one a frame."""

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = defaultdict(list)
        self._this: dict[str, float] = defaultdict(float)  # a frame may enter a stage again
        self.processor: list[float] = []
        self.moves: list[tuple[float, float]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._this[name] += time.perf_counter() - started

    @contextmanager
    def frame(self) -> Iterator[None]:
        started = time.process_time()
        self._this.clear()
        with watched_by(self), self("frame"):
            yield
        for name, seconds in self._this.items():
            self.stages[name].append(seconds)
        self.processor.append(time.process_time() - started)


def opened_here(base: FrameGenerator, names: list[str]) -> dict[str, FrameGenerator]:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        graphs = graphs_of(base, Path(folder))
    print(f"traced in {time.perf_counter() - started:.1f} s")
    opened: dict[str, FrameGenerator] = {TORCH: base}
    for name in names:
        if missing := missing_modules(BACKENDS[name].extra):
            print(f"{name}: without {', '.join(missing)}")
            continue
        started = time.perf_counter()
        opened[name] = CompiledGenerator(base, graphs, name)
        print(f"{name}: compiled in {time.perf_counter() - started:.2f} s", end=", ")
        print(f"{agreement(base, opened[name]):.1f} dB from torch")
    return opened


def timed(
    opened: dict[str, FrameGenerator], small: tuple[int, int], scale: float, count: int
) -> dict[str, Times]:
    height, width = (round(side * scale) for side in small)
    draw = torch.Generator().manual_seed(0)
    frames = [
        resize_bicubic(torch.rand(1, 3, *small, generator=draw), height, width)[0]
        for _ in range(count + WARM_UP)
    ]
    times = {name: Times() for name in opened}
    streams = {name: pipe.stream(frames, enlarged=scale) for name, pipe in opened.items()}
    for index in range(count + WARM_UP):
        for name, stream in streams.items():
            with times[name].frame():
                next(stream)
        if index == WARM_UP - 1:
            times = {name: Times() for name in opened}
    for name, pipe in opened.items():
        prepared = pipe.prepare(torch.stack(frames[:2]), count=1, steadied=False)  # as the page
        pipe.finish(prepared)
        for move in range(1, 6):
            started, used = time.perf_counter(), time.process_time()
            pipe.finish(prepared, detail=move / 10)
            times[name].moves.append((time.perf_counter() - started, time.process_time() - used))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    add = parser.add_argument
    add("--model", default="compact")
    add("--dtype", default="auto")
    add("--size", default="128x128", help="of the input, width x height")
    add("--scale", type=float, default=4.0)
    add("--frames", type=int, default=20)
    add("--runtimes", nargs="+", default=list(BACKENDS), choices=list(BACKENDS))
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    base = load_pipeline(options.model, "cpu", options.dtype)
    print(f"{options.model}, {base.compute_dtype}, {machine(torch.device('cpu'))}")
    opened = opened_here(base, options.runtimes)
    for name, times in timed(opened, (height, width), options.scale, options.frames).items():
        told = [
            f"{stage} {1e3 * statistics.median(seconds):.1f} (min {1e3 * min(seconds):.1f})"
            for stage, seconds in times.stages.items()
        ]
        clock, used = (
            sorted(1e3 * s for s in seconds) for seconds in zip(*times.moves, strict=True)
        )
        told.append(f"processor {1e3 * min(times.processor):.1f}")
        told.append(
            f"dial {statistics.median(clock):.0f} (min {clock[0]:.0f}, processor {used[0]:.0f})"
        )
        print(f"{name}, ms: {', '.join(told)}")


if __name__ == "__main__":
    main()
