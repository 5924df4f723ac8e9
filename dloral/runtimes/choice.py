"""Which runtime a model runs in: the requested one, or the fastest on this machine.

Whatever keeps a runtime from running (it is not installed, it cannot compile here, its pictures
differ from torch's) is reported in one line, and the model runs in torch.
"""

import hashlib
import json
import logging
import math
import os
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dloral.devices import device_title
from dloral.errors import OptionError
from dloral.files import write_json
from dloral.frame_generator import FrameGenerator
from dloral.options import AUTO, RUNTIMES, TORCH
from dloral.packages import EXTRAS, install_command, missing_modules
from dloral.runtimes.backends import BACKENDS
from dloral.runtimes.compiled import CompiledGenerator
from dloral.runtimes.graphs import check_exportable, graphs_of, weights_of

LEAST_PSNR = {torch.float32: 80.0, torch.bfloat16: 40.0}
"""Decibels between a runtime's frames and torch's, from which they count as the same picture."""

TESTED_SCALES = ((1.0, 1.0), (0.25, 0.5))
"""Of the self-test; two pairs, so that scales that do nothing are found."""

NETWORKS_ALONE: dict[str, Any] = {"color_fix": "none", "enlarged": 1.0}
"""Of a run that is tested or timed, with ``steadied=False``: without what follows the decoder in
torch whatever runs it."""

MARGIN = 0.95
"""Of torch's time, that another runtime must stay below to be picked."""

TIMED_SIDE, ROUNDS = 256, 4
"""Pixels a side of the frames that are timed, and how often; the first round warms up."""

CHOICES = "runtimes.json"

_log = logging.getLogger(__name__)


def in_runtime(base: FrameGenerator, runtime: str, cache: Path) -> FrameGenerator:
    """``base`` in ``runtime``, one of :data:`dloral.options.RUNTIMES`, or as it is.

    ``cache``: a folder for traced graphs and for what auto picked, measured once per model,
    precision, processor with its threads, and library versions. Raises :class:`OptionError` for
    another name.
    """
    if runtime not in RUNTIMES:
        raise OptionError(f"runtime is {runtime!r}; choose from {', '.join(RUNTIMES)}")
    if runtime == TORCH or not _may_run(base, runtime):
        return base
    if runtime != AUTO:
        return _opened(base, runtime, cache) or base
    base.set_scales()  # the weights for which a choice is remembered
    names = [name for name, one in BACKENDS.items() if not missing_modules(one.extra)]
    key = _key(base, names)
    told = _choices(cache).get(key)
    chosen = told.get("runtime") if isinstance(told, dict) else None
    if chosen not in (TORCH, *names):
        return _fastest(base, names, cache, key)
    return base if chosen == TORCH else _opened(base, chosen, cache) or base


def _may_run(base: FrameGenerator, runtime: str) -> bool:
    """Whether the model can use the runtimes; says why not if one was requested."""
    try:
        check_exportable(base)
        reason = ""
    except OptionError as error:
        reason = str(error.facts["reason"])
    if base.execution_device.type != "cpu":
        reason = f"is on {base.execution_device}, and runtimes are for the CPU"
    elif not reason and base.compute_dtype not in LEAST_PSNR:
        reason = f"computes in {str(base.compute_dtype).removeprefix('torch.')}"
    if reason and runtime != AUTO:
        _log.warning("runtime %s: this model %s; using torch", runtime, reason)
    return not reason


def _opened(base: FrameGenerator, name: str, cache: Path) -> CompiledGenerator | None:
    """The model in a runtime; None, and a line that says why, where that does not work."""
    extra = BACKENDS[name].extra
    if missing := missing_modules(extra):
        command = install_command(extra)
        _log.warning("runtime %s needs %s; %s; using torch", name, " and ".join(missing), command)
        return None
    try:
        opened = CompiledGenerator(base, graphs_of(base, cache), name)
        psnr = agreement(base, opened)
    except Exception as error:  # whatever its library raises on a machine it does not know
        line = next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
        _log.warning("runtime %s does not start here: %s; using torch", name, line)
        return None
    if not psnr >= LEAST_PSNR[base.compute_dtype]:
        _log.warning(
            "runtime %s gives different pictures from torch (%.0f dB); using torch", name, psnr
        )
        return None
    return opened


def agreement(base: FrameGenerator, other: FrameGenerator) -> float:
    """PSNR in dB between frames that both restore, the lowest over :data:`TESTED_SCALES`; some
    have sides that the UNet cannot halve evenly."""
    stride = base.latent_stride
    clip = _frames(2, 9 * stride, 6 * stride)
    lowest = math.inf
    for scales in TESTED_SCALES:
        ours, theirs = (
            pipe.finish(pipe.prepare(clip, steadied=False), *scales, **NETWORKS_ALONE)
            for pipe in (base, other)
        )
        error = float((ours - theirs).square().mean())
        lowest = min(lowest, -10 * math.log10(error) if error else math.inf)
        if math.isnan(error):
            return error
    return lowest


def _fastest(base: FrameGenerator, names: list[str], cache: Path, key: str) -> FrameGenerator:
    """Measures, and remembers the outcome under ``key``."""
    if not names:
        return base
    opened: dict[str, FrameGenerator] = {TORCH: base}
    opened |= {name: one for name in names if (one := _opened(base, name, cache)) is not None}
    seconds = _seconds(opened)
    best = min(opened, key=seconds.__getitem__)
    chosen = best if seconds[best] < MARGIN * seconds[TORCH] else TORCH
    told = {"runtime": chosen, "seconds": {name: round(s, 4) for name, s in seconds.items()}}
    with suppress(OSError):  # else it is measured again; an OutputError is one too
        cache.mkdir(parents=True, exist_ok=True)
        write_json(cache / CHOICES, _choices(cache) | {key: told})
    return opened[chosen]


def _seconds(opened: dict[str, FrameGenerator]) -> dict[str, float]:
    """Seconds per frame, the best of a few rounds in which each takes its turn."""
    clip = _frames(2, TIMED_SIDE, TIMED_SIDE)
    best = dict.fromkeys(opened, math.inf)
    for turn in range(ROUNDS):
        for name, pipe in opened.items():
            started = time.perf_counter()
            pipe.finish(pipe.prepare(clip, steadied=False), **NETWORKS_ALONE)
            if turn:
                taken = (time.perf_counter() - started) / len(clip)
                best[name] = min(best[name], taken)
    return best


def _frames(count: int, height: int, width: int) -> Tensor:
    """Soft colours with grain, (T,3,H,W) in [0, 1]; deterministic."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 5, generator=draw)
    soft = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (soft + 0.05 * torch.rand(soft.shape, generator=draw)).clamp(0, 1)


def _choices(cache: Path) -> dict[str, Any]:
    try:
        told = json.loads((cache / CHOICES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _key(base: FrameGenerator, names: list[str]) -> str:
    """Digest of what a choice depends on: weights, precision, processor, threads, versions."""
    weights = hashlib.sha256()
    for weight in weights_of(base).values():
        weights.update(weight.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    modules = sorted({module for name in names for module in EXTRAS[BACKENDS[name].extra]})
    told = [
        weights.hexdigest(),
        str(base.compute_dtype),
        device_title(torch.device("cpu")),
        torch.backends.cpu.get_cpu_capability(),
        os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        torch.get_num_threads(),
        torch.__version__,
        {module: version(module) for module in modules},
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
