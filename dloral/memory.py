"""Memory: how much is free, what a frame needs, and what to do when there is less.

One ladder of :class:`Limits` serves both purposes: before a clip starts, we step down until the
estimate fits; and if memory runs out all the same, we step down once more and retry the frame.
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

_MOST_ON_HEAP = 2**25  # the maximum glibc allows
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
    """How frames are restored: ``batch_size`` at a time; ``tile``, ``tile_overlap`` of the UNet and
    ``vae_tile`` of the VAE in latent cells, None for whole frames; ``keep_text``: the text encoder
    stays loaded after reading a prompt; ``offload``: a part is on the GPU only while it runs.
    """

    batch_size: int = 1
    tile: int | None = None
    tile_overlap: int = 32
    vae_tile: int | None = None
    keep_text: bool = True
    offload: bool = False

    def lower(self, cells: int, can: Collection[str]) -> "Limits | None":
        """One step down for frames of ``cells`` latent cells on the longer side; None on the last.

        ``can``: which of "text", "vae_tile", "offload" and "tile" the model and its device allow.
        Steps that only cost time come first, visible ones last: a tile of the UNet estimates its
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
        """In words, what is lower than in ``than``; ``stride`` is pixels per latent cell."""
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
    """What a model declares about its memory; part of :class:`dloral.generator.Generator`."""

    @property
    def execution_device(self) -> torch.device:
        """Where frames and latents go for a step."""

    @property
    def latent_stride(self) -> int:
        """Pixels per side of one latent cell."""

    @property
    def steps_down(self) -> Collection[str]:
        """What may be done to need less memory; see :meth:`Limits.lower`."""

    def needed_memory(self, limits: Limits, height: int, width: int) -> int:
        """Bytes, roughly, that frames of ``height`` x ``width`` take beyond the weights."""


def fit(model: NeedsMemory, asked: Limits, height: int, width: int) -> tuple[Limits, str] | None:
    """The first limits below ``asked`` with which frames of ``height`` x ``width`` pixels should
    fit, and what to tell; None if ``asked`` will do, or no step down is left."""
    free, limits = free_memory(model.execution_device), asked
    while model.needed_memory(limits, height, width) > SHARE * free:
        lower = _lower(model, limits, height, width)
        if lower is None:
            break  # an estimate alone is no reason to refuse
        limits = lower
    if limits == asked:
        return None
    words = limits.told(asked, model.latent_stride)
    return limits, f"{free / 1e9:.1f} GB of memory is free: {words}"


def step_down(model: NeedsMemory, limits: Limits, height: int, width: int) -> tuple[Limits, str]:
    """One step below ``limits`` after memory ran out, and what to tell.

    Raises :class:`ResourceError` on the last step.
    """
    lower = _lower(model, limits, height, width)
    if lower is None:
        raise ResourceError(
            "frames of {width}x{height} do not fit in the memory of {device}, even in the "
            "smallest steps",
            remedy="use a smaller {scale}, {dtype}, or {model}",
            width=width,
            height=height,
            device=str(model.execution_device),
            scale=Setting("scale"),
            dtype=Setting("dtype", "bfloat16"),
            model=Setting("model", "compact"),
        )
    return lower, f"memory ran out; continuing with {lower.told(limits, model.latent_stride)}"


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
    """What this process's control group limit leaves; None without one."""
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
    """Whether an allocation failed; on a CPU there is no error class for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def release_memory() -> None:
    """Return unused memory to the device and to the system."""
    gc.collect()
    trim = _of_c_library("malloc_trim")
    if trim is not None:
        trim(0)
    empty_caches()


def keep_freed_memory() -> None:
    """Let the C library keep ``KEPT_MEMORY`` of freed memory for the next frame (glibc only).

    Otherwise it returns the end of its heap when a frame's features are freed, and the next frame
    takes the same pages anew, each with a page fault and zero-filled: tens of thousands of them
    for a frame of 512 x 512.
    """
    mallopt = _of_c_library("mallopt")
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_MEMORY)
        mallopt(_M_MMAP_THRESHOLD, _MOST_ON_HEAP)  # the first call froze it at 128 KiB
        # Per-thread heaps end at 64 MiB and are returned whole: new threads use the main one.
        mallopt(_M_ARENA_MAX, 1)


def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of glibc; None with another C library or where it has no such function."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)
