"""Degraded pairs on disk, made once by ``dloral data pack``, read at random.

A pack is a folder: ``hq.npy`` (N,T,3,S,S) and ``lq.npy`` (N,T,3,S/4,S/4), uint8, and for clips
``flow.npy`` (N,T-1,2,S/8,S/8), float16: current to previous, in cells of 8 pixels.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dloral.data.clips import Clips, Draw
from dloral.errors import InputError
from dloral.frames.resize import LATENT_STRIDE, resize_bicubic


class Pack:
    """One pack, memory-mapped; data is read only when drawn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        flow = folder / "flow.npy"
        try:
            self.hq = np.load(folder / "hq.npy", mmap_mode="r")
            self.lq = np.load(folder / "lq.npy", mmap_mode="r")
            self.flow = np.load(flow, mmap_mode="r") if flow.is_file() else None
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{folder} is not a complete pack; make one with `dloral data pack`"
            ) from error
        self.size = self.hq.shape[-1]

    def check(self, frames: int, crop: int = 0) -> Self:
        """Itself, if its clips have flow, at least ``frames`` frames and at least ``crop`` pixels a
        side; :class:`InputError` if not."""
        count, found = self.hq.shape[:2]
        if not count:
            raise InputError(
                f"{self.folder} is an empty pack; make one with a --count of 1 or more"
            )
        if found < frames:
            raise InputError(
                f"{self.folder} has clips of {found} frames, and {frames} are needed; make a pack "
                f"with --frames {frames}, or set algorithm.window or algorithm.outputs lower"
            )
        self._flow()
        self._steps(crop)
        return self

    def manifest(self) -> dict[str, Any]:
        """How it was made, and from which sources; empty if there is no manifest."""
        try:
            found = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def clip(self, index: int) -> tuple[Tensor, Tensor]:
        """One whole clip: (hq_frames, lq_frames at the same size), (T,3,S,S) in [0, 1]."""
        hq, lq = (_floats(frames[index]) for frames in (self.hq, self.lq))
        return hq, resize_bicubic(lq, self.size, self.size)

    def clips(self, which: slice | list[int]) -> Clips:
        """Whole clips; raises :class:`InputError` for a pack without flow."""
        return Clips(*self._whole(which))

    def draw_clips(self, rng: np.random.Generator, count: int, crop: int) -> Clips:
        """``count`` random clips, each cropped at one place, and mirrored sideways or not."""
        drawn = []
        for index in rng.integers(len(self.hq), size=count):
            whole = self._whole([int(index)])
            top, left = LATENT_STRIDE * rng.integers(self._steps(crop) + 1, size=2)
            parts = [self._cut(part, top, left, crop) for part in whole]
            if rng.integers(2):
                parts = [part.flip(-1) for part in parts]
                parts[2] = parts[2] * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
            drawn.append(parts)
        return Clips(*(torch.cat(parts) for parts in zip(*drawn, strict=True)))

    def _whole(self, which: slice | list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        flow = torch.from_numpy(self._flow()[which].astype("f4"))
        hq, small = (_floats(frames[which]) for frames in (self.hq, self.lq))
        lq = resize_bicubic(small.flatten(0, 1), self.size, self.size).unflatten(0, hq.shape[:2])
        return hq, lq, _full_size_flow(flow), small

    def _cut(self, part: Tensor, top: int, left: int, crop: int) -> Tensor:
        """A square aligned to the latent grid, so that latents of crop and whole agree; ``top``,
        ``left``, ``crop`` are in pixels of the large frames, whatever this part's size."""
        top, left, side = (n * part.shape[-1] // self.size for n in (top, left, crop))
        return part[..., top : top + side, left : left + side]

    def _steps(self, crop: int) -> int:
        """By how many latent cells a crop can be moved."""
        if crop > self.size:
            raise InputError(
                f"{self.folder} has pictures of {self.size} pixels a side, smaller than a crop of "
                f"{crop}; set algorithm.crop to {self.size} or less, or make a pack with --size "
                f"{crop}"
            )
        return (self.size - crop) // LATENT_STRIDE

    def _flow(self) -> np.ndarray:
        if self.flow is None:
            raise InputError(
                f"{self.folder} has no flow.npy, which clips need; make a pack of photographs with "
                "--frames 2 or more"
            )
        return self.flow


@dataclass(frozen=True)
class PackClips:
    """Random clips of a pack: ``clips`` per micro-batch, ``crop`` pixels square, on ``device``."""

    pack: Pack
    clips: int
    crop: int
    device: torch.device | str = "cpu"

    def draw(self, draw: Draw) -> Clips:
        return self.pack.draw_clips(draw.rng, self.clips, self.crop).to(self.device)


def psnr(frames: Tensor, hq_frames: Tensor) -> Tensor:
    """PSNR in dB of each frame (B,3,H,W) in [0, 1] -> (B,), over all channels and pixels; at most
    100, like the measure of that name."""
    error = (frames.clamp(0, 1) - hq_frames).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp(min=1e-10).log10()


def _floats(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(pixels)).float() / 255


def _full_size_flow(flow: Tensor) -> Tensor:
    """(B,T-1,2,h,w) in cells -> (B,T-1,2,8h,8w) in pixels."""
    shape = flow.shape[:2]
    large = F.interpolate(
        flow.flatten(0, 1), scale_factor=LATENT_STRIDE, mode="bilinear", align_corners=False
    )
    return LATENT_STRIDE * large.unflatten(0, shape)
