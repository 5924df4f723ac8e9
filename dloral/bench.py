"""How fast a model is on this machine, beside what the machine is."""

import platform
import statistics
import time

import torch

from dloral.devices import device_title, memory_of
from dloral.frames.resize import resize_bicubic
from dloral.weights.loading import load_pipeline

WARM_UP = 3  # frames: kernels are chosen and memory is laid out


def bench(
    model: str, device: str, dtype: str, height: int, width: int, scale: float, num_frames: int
) -> str:
    """Time frame after frame, from the small input to the colour-fixed result; a few lines of text.

    Every frame is new (noise), so nothing can be kept from the one before but its latents.
    """
    started = time.perf_counter()
    pipe = load_pipeline(model, device, dtype)
    loading = time.perf_counter() - started
    target = (round(height * scale), round(width * scale))
    draw = torch.Generator().manual_seed(0)
    small = (torch.rand(1, 3, height, width, generator=draw) for _ in range(num_frames + WARM_UP))
    stream = pipe.stream(resize_bicubic(frame, *target)[0] for frame in small)
    times = []
    for _ in range(num_frames + WARM_UP):
        started = time.perf_counter()
        next(stream)
        times.append(time.perf_counter() - started)
    times = times[WARM_UP:]
    precision = str(pipe.compute_dtype).removeprefix("torch.")
    return (
        f"{model} on {machine(pipe.execution_device)}\n"
        f"{width}x{height} -> {target[1]}x{target[0]}, {precision}, {num_frames} frames: "
        f"median {statistics.median(times):.3f} s a frame "
        f"(min {min(times):.3f}, max {max(times):.3f}); loaded in {loading:.1f} s"
    )


def machine(device: torch.device) -> str:
    """The processor or GPU, its threads or memory, and torch's version."""
    version = f"torch {torch.__version__}"
    name, memory = device_title(device), memory_of(device)
    if device.type != "cpu":
        return name + (f" ({memory / 2**30:.0f} GiB)" if memory else "") + f", {version}"
    return f"{name}, {torch.get_num_threads()} threads, {platform.system()}, {version}"
