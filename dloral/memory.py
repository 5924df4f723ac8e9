"""Memory: how much is free, what a frame needs, and what to do with less.

One ladder of :class:`Limits` serves both ends: before a clip is begun, a step is taken down as long
as the estimate does not fit; and where memory runs out all the same, one more, and the frame is
tried again.
"""

import ctypes
import gc
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import psutil
import torch

from dloral.devices import empty_caches, free_on_device
from dloral.errors import ResourceError, Setting

VAE_TILES = (64, 32)
"""Latent cells a side; 64 is 512 pixels."""

UNET_TILES = (96, 64, 48)

SHARE = 0.9
"""Of the free memory, what an estimate may take."""

KEPT_MEMORY = 2**28
"""Bytes of freed memory that stay with the process; see :func:`keep_freed_memory`."""

_MOST_ON_HEAP = 2**25  # the most that glibc allows
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h

_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "could not create a memory",
    "could not create a primitive",  # oneDNN, where an allocation of its own fails
)


@dataclass(frozen=True)
class Limits:
    """How frames are restored. ``batch_size`` frames at a time; ``tile``, ``tile_overlap`` of the
    UNet and ``vae_tile`` of the VAE in latent cells, None for whole frames; ``keep_text``: the text
    encoder stays after a prompt was read; ``offload``: a part is on the GPU only while it runs.
    """

    batch_size: int = 1
    tile: int | None = None
    tile_overlap: int = 32
    vae_tile: int | None = None
    keep_text: bool = True
    offload: bool = False

    def lower(self, cells: int, can: Collection[str]) -> "Limits | None":
        """One step down for frames of ``cells`` latent cells on the longer side; None on the last.

        ``can``: what the model and its device allow of "text", "vae_tile", "offload" and "tile".
        First what costs nothing but time, last what can be seen: a tile of the UNet estimates its
        own flow.
        """
        if self.batch_size > 1:
            return replace(self, batch_size=1)
        if self.keep_text and "text" in can:
            return replace(self, keep_text=False)
        for vae_tile in VAE_TILES if "vae_tile" in can else ():
            if vae_tile < min(self.vae_tile or cells, cells):
                return replace(self, vae_tile=vae_tile)
        if not self.offload and "offload" in can:
            return replace(self, offload=True)
        for tile in UNET_TILES if "tile" in can else ():
            if tile < min(self.tile or cells, cells):
                return replace(self, tile=tile, tile_overlap=min(self.tile_overlap, tile // 3))
        return None

    def told(self, than: "Limits", stride: int) -> str:
        """In words, what is less than in ``than``; ``stride`` is pixels a latent cell."""
        words = []
        if self.batch_size != than.batch_size:
            words.append("one frame at a time")
        if self.keep_text != than.keep_text:
            words.append("the text encoder unloaded")
        if self.vae_tile != than.vae_tile:
            words.append(f"the VAE in tiles of {stride * (self.vae_tile or 0)} pixels")
        if self.offload != than.offload:
            words.append("parts moved to the GPU one by one")
        if self.tile != than.tile:
            words.append(f"the UNet in tiles of {stride * (self.tile or 0)} pixels")
        return ", ".join(words)


class NeedsMemory(Protocol):
    """What a model says of its memory; part of :class:`dloral.generator.Generator`."""

    @property
    def execution_device(self) -> torch.device:
        """Where frames and latents go for a step."""

    @property
    def latent_stride(self) -> int:
        """Pixels a side of one latent cell."""

    @property
    def steps_down(self) -> Collection[str]:
        """What may be done to need less of it; see :meth:`Limits.lower`."""

    def needed_memory(self, limits: Limits, height: int, width: int) -> int:
        """Bytes, roughly, that frames of ``height`` x ``width`` take beyond the weights."""


def fit(model: NeedsMemory, asked: Limits, height: int, width: int) -> tuple[Limits, str] | None:
    """The first limits below ``asked`` that frames of ``height`` x ``width`` pixels should fit
    with, and what to tell; None where ``asked`` will do, or where no step down is left."""
    free, limits = free_memory(model.execution_device), asked
    while model.needed_memory(limits, height, width) > SHARE * free:
        lower = _lower(model, limits, height, width)
        if lower is None:
            break  # an estimate is no reason to refuse
        limits = lower
    if limits == asked:
        return None
    words = limits.told(asked, model.latent_stride)
    return limits, f"{free / 1e9:.1f} GB of memory are free: {words}"


def step_down(model: NeedsMemory, limits: Limits, height: int, width: int) -> tuple[Limits, str]:
    """One step below ``limits``, after memory ran out, and what to tell.

    Raises :class:`ResourceError` on the last step.
    """
    lower = _lower(model, limits, height, width)
    if lower is None:
        raise ResourceError(
            "frames of {width}x{height} do not fit the memory of {device}, not even in the "
            "smallest steps",
            remedy="use a smaller {scale}, {dtype}, or {model}",
            width=width,
            height=height,
            device=str(model.execution_device),
            scale=Setting("scale"),
            dtype=Setting("dtype", "bfloat16"),
            model=Setting("model", "compact"),
        )
    return lower, f"memory ran out; going on with {lower.told(limits, model.latent_stride)}"


def _lower(model: NeedsMemory, limits: Limits, height: int, width: int) -> Limits | None:
    return limits.lower(max(height, width) // model.latent_stride, model.steps_down)


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on ``device``; a container's limit counts."""
    on_device = free_on_device(device)
    if on_device is not None:
        return on_device
    available: int = psutil.virtual_memory().available
    left = _left_in_container()
    return available if left is None else min(available, left)


def _left_in_container(control: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the limit of this process's control group leaves; None without one."""
    try:
        most = (control / "memory.max").read_text().strip()
        used = int((control / "memory.current").read_text())
        reclaimable = 0
        for line in (control / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                reclaimable = int(line.split()[1])
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(0, int(most) - used + reclaimable)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; a CPU's has no error class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def release_memory() -> None:
    """Give what is no longer used back to the device, and to the system."""
    gc.collect()
    trim = _of_c_library("malloc_trim")
    if trim is not None:
        trim(0)
    empty_caches()


def keep_freed_memory() -> None:
    """Let the C library keep ``KEPT_MEMORY`` of freed memory for the next frame (glibc alone).

    It gives the end of its heap back when a frame's features are freed, and the next frame takes
    the same pages anew, each a fault of the processor and filled with zeros first: ten thousands
    of them for a frame of 512 x 512.
    """
    mallopt = _of_c_library("mallopt")
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_MEMORY)
        mallopt(_M_MMAP_THRESHOLD, _MOST_ON_HEAP)  # the first call froze it at 128 KiB
        # Heaps of threads end at 64 MiB and are given back whole: new threads use the main one.
        mallopt(_M_ARENA_MAX, 1)


def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of glibc; None where the C library is another or has no such function."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)
