"""A model timed frame after frame, stage by stage and from file to file, and others beside it."""

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dloral.bench.ceilings import Ceilings, measure_ceilings
from dloral.bench.clips import write_clip
from dloral.bench.memory import begin_peaks, peaks
from dloral.bench.watchers import StageSeconds, stage_flops
from dloral.devices import device_title, memory_of
from dloral.frames.resize import enlargement, resize_bicubic
from dloral.memory import release_memory
from dloral.options import AUTO_TILE, TORCH, UpscaleOptions
from dloral.stages import COLOUR, CRISP, ENLARGE, STAGES, STEADY, watched_by
from dloral.upscale import Progress, upscale_steps
from dloral.weights.loading import load_pipeline

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator

WARM_UP = 3  # frames: kernels are chosen and memory is laid out

PASSED_FRAMES = {ENLARGE: 1, COLOUR: 3, CRISP: 2, STEADY: 3}
"""Float frames of the output's size that a stage without products must read and write at least:
enlarging writes one, the colour fix reads two and writes one, crispness one each,
blending reads two and writes one."""

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Stage:
    """One stage of a frame: seconds, operations of its products, and the bytes that it cannot but
    read and write (0 where its products are what counts)."""

    name: str
    seconds: float
    flops: int = 0
    least_bytes: int = 0


@dataclass(frozen=True)
class Timed:
    """What the network takes: ``times``, seconds of each frame from the small input to the
    finished result."""

    model: str
    machine: str
    dtype: str
    scale: float
    small: Size
    large: Size
    loading: float
    times: tuple[float, ...] = field(repr=False)

    @property
    def seconds(self) -> float:
        """Of a frame, the median."""
        return statistics.median(self.times)


@dataclass(frozen=True)
class Staged:
    """Where the time goes. ``overall``: seconds of a frame from file to file, one stage after
    another; ``file_to_file``: the same as ``dloral upscale`` runs it. ``host_peak`` and
    ``device_peak`` in bytes, None where nobody counts them."""

    timed: Timed
    stages: tuple[Stage, ...]
    overall: float
    file_to_file: float
    ceilings: Ceilings
    host_peak: int | None
    device_peak: int | None

    @property
    def flops(self) -> int:
        return sum(stage.flops for stage in self.stages)

    @property
    def rest(self) -> float:
        """Seconds of a frame that belong to no stage."""
        return self.overall - sum(stage.seconds for stage in self.stages)


def bench_steps(
    model: str,
    device: str,
    dtype: str,
    sizes: Sequence[Size],
    scale: float,
    num_frames: int,
    runtime: str = TORCH,
) -> Iterator[Timed | Staged]:
    """For each of ``sizes``, of the input, what the network takes, then where the time goes."""
    started = time.perf_counter()
    pipe = load_pipeline(model, device, dtype, runtime=runtime)
    loading = time.perf_counter() - started
    place = pipe.execution_device
    ceilings = None
    for size in sizes:
        timed = Timed(
            model,
            machine(place),
            str(pipe.compute_dtype).removeprefix("torch."),
            scale,
            size,
            (round(size[0] * scale), round(size[1] * scale)),
            loading,
            _network_times(pipe, size, scale, num_frames),
        )
        yield timed
        ceilings = ceilings or measure_ceilings(place, pipe.compute_dtype)
        yield _staged(pipe, timed, ceilings)


def machine(device: torch.device) -> str:
    """The processor or GPU, its threads or memory, and torch's version."""
    version = f"torch {torch.__version__}"
    name, memory = device_title(device), memory_of(device)
    if device.type != "cpu":
        return name + (f" ({memory / 2**30:.0f} GiB)" if memory else "") + f", {version}"
    return f"{name}, {torch.get_num_threads()} threads, {platform.system()}, {version}"


def _network_times(
    pipe: "FrameGenerator", size: Size, scale: float, num_frames: int
) -> tuple[float, ...]:
    stream = _noise_restored(pipe, size, scale, num_frames + WARM_UP)
    times = []
    for _ in range(num_frames + WARM_UP):
        started = time.perf_counter()
        next(stream)
        times.append(time.perf_counter() - started)
    return tuple(times[WARM_UP:])


def _noise_restored(
    pipe: "FrameGenerator", size: Size, scale: float, count: int
) -> Iterator[torch.Tensor]:
    """Every frame is new, so nothing can be kept from the one before but its latents."""
    draw = torch.Generator().manual_seed(0)
    target = (round(size[0] * scale), round(size[1] * scale))
    small = (torch.rand(1, 3, *size, generator=draw) for _ in range(count))
    frames = (resize_bicubic(frame, *target)[0] for frame in small)
    return pipe.stream(frames, tile=AUTO_TILE, enlarged=enlargement(size, target))


def _staged(pipe: "FrameGenerator", timed: Timed, ceilings: Ceilings) -> Staged:
    place, num_frames = pipe.execution_device, len(timed.times)
    restored = _noise_restored(pipe, timed.small, timed.scale, 2)
    next(restored)  # the first frame has no predecessor
    flops = stage_flops(lambda: next(restored))
    with tempfile.TemporaryDirectory(prefix="dloral-bench-") as folder:
        clip = write_clip(Path(folder), *timed.small, num_frames + WARM_UP)
        target = Path(folder) / "out.mp4"
        options = UpscaleOptions(timed.model, timed.scale, tagger="none", resume=False)
        release_memory()
        begin_peaks(place)
        file_to_file = _seconds_of_a_frame(upscale_steps(clip, target, options, pipe))
        host_peak, device_peak = peaks(place)
        watch = StageSeconds(place)
        with watched_by(watch):
            steps = upscale_steps(clip, target, options, pipe, overlap=False)
            overall = _seconds_of_a_frame(steps, watch.forget)
    pixels = 4 * 3 * timed.large[0] * timed.large[1]
    stages = tuple(
        Stage(
            name,
            watch.seconds[name] / num_frames,
            flops.get(name, 0),
            pixels * PASSED_FRAMES.get(name, 0),
        )
        for name in STAGES
        if name in watch.seconds
    )
    return Staged(timed, stages, overall, file_to_file, ceilings, host_peak, device_peak)


def _seconds_of_a_frame(
    steps: Generator[Progress, None, None], when_warm: Callable[[], None] | None = None
) -> float:
    """From when the first frames are done to the job's end."""
    started, frame = 0.0, 0
    for progress in steps:
        frame = progress.frame
        if progress.stage == "restoring" and frame == WARM_UP:
            started = time.perf_counter()
            if when_warm is not None:
                when_warm()
    return (time.perf_counter() - started) / (frame - WARM_UP)
