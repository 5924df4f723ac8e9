"""Other upscalers at the same sizes, in the same run (:mod:`dloral.evaluation.baselines`)."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dloral.bench.run import WARM_UP, Size
from dloral.bench.watchers import flops_of
from dloral.errors import COMMAND_LINE, DLoRALError
from dloral.evaluation.baselines import NETWORKS, Upscaler, load_baseline

USUAL = ("bicubic", "span", "realesr-general-x4v3", "realesrgan-x4plus")
"""Who is asked for where nobody is named."""


@dataclass(frozen=True)
class Peer:
    """``seconds``: of a frame, the median, from the small frame to the large one; ``flops`` None
    where they cannot be counted. ``dtype``: what it computes in. ``absent``: why it was not run."""

    name: str
    size: Size
    seconds: float = 0.0
    dtype: str = ""
    flops: int | None = None
    absent: str = ""


def time_peers(
    names: Sequence[str],
    networks: Mapping[str, Path],
    device: str,
    dtype: torch.dtype,
    sizes: Sequence[Size],
    num_frames: int,
) -> Iterator[Peer]:
    """Each of ``names`` at each of ``sizes``; no names: all of :data:`USUAL` and ``networks``.

    ``dtype``: of the networks in torch. One that was named and cannot be had is an error.
    """
    for name in names or dict.fromkeys([*USUAL, *networks]):
        try:
            upscaler = load_baseline(name, networks, device=device, dtype=dtype)
        except DLoRALError as error:
            if names:
                raise
            yield Peer(name, sizes[0], absent=error.render(COMMAND_LINE))
            continue
        for size in sizes:
            yield _timed(name, upscaler, size, num_frames, networks, dtype)


def _timed(
    name: str,
    upscaler: Upscaler,
    size: Size,
    num_frames: int,
    networks: Mapping[str, Path],
    dtype: torch.dtype,
) -> Peer:
    draw = torch.Generator().manual_seed(0)
    times = []
    for _ in range(num_frames + WARM_UP):
        frame = torch.rand(3, *size, generator=draw)
        started = time.perf_counter()
        upscaler(frame)
        times.append(time.perf_counter() - started)
    in_torch = name in networks
    flops = None if name in NETWORKS and not in_torch else flops_of(lambda: upscaler(frame))
    precision = str(dtype).removeprefix("torch.") if in_torch else "float32"
    return Peer(name, size, statistics.median(times[WARM_UP:]), precision, flops)
