"""Clips made on the device while it trains: the newest few thousand, sampled repeatedly.

Legend: N clips, T frames, S pixels a side, cells of 8 pixels. Frames are stored as uint8 and used
as float32 RGB in [0, 1].
"""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from tqdm import tqdm

from dloral.data.batch_degradation import DegradationBank, jpeg
from dloral.data.clips import Clips, Draw, turned
from dloral.data.odd import charts, recoloured
from dloral.data.pictures import Pictures
from dloral.data.spec import check
from dloral.frames.resize import LATENT_STRIDE, resize_bicubic

SMALLEST_SCALE_SHARE = 0.5
"""Of the micro-batches for smaller scales, those for the smallest: what people ask for is 2, not
something near it."""


QUIET_SECONDS = 5
"""After which preparing has a progress bar; and between two of its lines in a file."""


def preparing(refills: range) -> Iterable[int]:
    """The numbers of refills that a step needs; before a run's first they may take minutes, so
    then a bar of their own tells."""
    every = 0.1 if sys.stderr.isatty() else QUIET_SECONDS
    return tqdm(refills, "preparing", leave=False, delay=QUIET_SECONDS, mininterval=every)


@dataclass(frozen=True)
class PoolConfig:
    """The newest ``held`` clips; ``at_a_time`` are made together every ``refill_every`` steps,
    after ``warm_refills`` refills before the first. ``light_share`` of them are only shrunk and
    lightly compressed: a barely degraded input must not be spoilt. Degradations are combined from
    ``draws`` that are made once.

    ``smaller_share`` of the micro-batches are for scales below 4: larger parts of the clips, whose
    truth and flow are shrunk up to ``most_reduction`` times while the degraded frames are not. So
    the scale goes down to ``4 / most_reduction`` (our decision).

    ``odd_share`` of the clips are pictures that no camera takes (:mod:`dloral.data.odd`): half of
    them recoloured photographs, half static charts."""

    held: int = 24_000
    at_a_time: int = 192
    refill_every: int = 5
    warm_refills: int = 12
    light_share: float = 0.08
    draws: int = 2500
    smaller_share: float = 0.0
    most_reduction: float = 2.0
    odd_share: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            {
                "held": (self.held >= self.at_a_time, f"{self.at_a_time} (at_a_time) or more"),
                "at_a_time": (self.at_a_time >= 1, "1 or more"),
                "refill_every": (self.refill_every >= 1, "1 or more"),
                "warm_refills": (self.warm_refills >= 0, "0 or more"),
                "light_share": (0 <= self.light_share <= 1, "a share from 0 to 1"),
                "draws": (self.draws >= 1, "1 or more"),
                "smaller_share": (0 <= self.smaller_share <= 1, "a share from 0 to 1"),
                "most_reduction": (self.most_reduction >= 1, "1 or more"),
                "odd_share": (0 <= self.odd_share <= 1, "a share from 0 to 1"),
            },
        )

    def size(self, crop: int) -> int:
        """Side in pixels that clips need here, so that crops of ``crop`` can be cut."""
        if not self.smaller_share:
            return crop
        return math.ceil(self.most_reduction * crop / LATENT_STRIDE) * LATENT_STRIDE


class PoolClips:
    """The newest clips as a :class:`~dloral.data.clips.ClipSource`: a micro-batch is ``clips`` of
    them, ``frames`` frames each, cut to ``crop`` pixels a side.

    Refill ``k`` is drawn from ``(seed, k)`` alone, and a draw at a step sees the refills due by
    then, first in, first out. So a resumed run, which remakes those still in the pool, draws what
    an uninterrupted one does, and so does each of several processes.
    """

    def __init__(
        self,
        pictures: Pictures,
        frames: int,
        clips: int,
        crop: int,
        seed: int,
        config: PoolConfig | None = None,
    ) -> None:
        self.config = config = config or PoolConfig()
        self.pictures, self.frames = pictures, frames
        self.clips, self.crop, self.seed = clips, crop, seed
        size, device = pictures.size, pictures.device
        self.bank = DegradationBank(config.draws, seed, device)
        self.slots = config.held // config.at_a_time
        shape = (self.slots * config.at_a_time, frames)
        small, cells = size // 4, size // LATENT_STRIDE
        self.hq = torch.empty(*shape, 3, size, size, dtype=torch.uint8, device=device)
        self.lq = torch.empty(*shape, 3, small, small, dtype=torch.uint8, device=device)
        self.flow = torch.zeros(
            shape[0], frames - 1, 2, cells, cells, dtype=torch.float16, device=device
        )
        self.lossless = torch.zeros(shape[0], dtype=torch.bool, device=device)
        self.refills = 0

    def draw(self, draw: Draw) -> Clips:
        """Random clips, cropped on the latent grid, all turned and mirrored in the same one of
        eight ways."""
        self._refill_until(draw.step)
        device, generator = self.hq.device, self._generator(draw.rng)
        cut = self._cut_side(draw.rng)
        filled = min(self.refills, self.slots) * self.config.at_a_time
        # On the device, so that a step never waits for a copy of a few numbers.
        rows = torch.randint(filled, (self.clips,), device=device, generator=generator)
        steps = (self.hq.shape[-1] - cut) // LATENT_STRIDE
        offsets = torch.randint(steps + 1, (2, self.clips), device=device, generator=generator)
        parts = [
            _cut(tensor, rows, unit * offsets, side)
            for tensor, unit, side in (
                (self.hq, LATENT_STRIDE, cut),
                (self.lq, LATENT_STRIDE // 4, cut // 4),
                (self.flow, 1, cut // LATENT_STRIDE),
            )
        ]
        (hq, lq), flow = turned(parts[:2], parts[2], draw.rng)
        clips = self._sized(hq.float() / 255, lq.float() / 255, flow.float())
        return replace(clips, lossless=self.lossless[rows])

    def _cut_side(self, rng: np.random.Generator) -> int:
        """Side of the cut in pixels: the crop, or for smaller scales up to ``most_reduction``
        times as many."""
        # Without a share nothing is drawn, so that older runs continue as they began.
        if not self.config.smaller_share or rng.random() >= self.config.smaller_share:
            return self.crop
        most = min(self.config.size(self.crop), self.hq.shape[-1]) // LATENT_STRIDE
        if rng.random() < SMALLEST_SCALE_SHARE:
            return most * LATENT_STRIDE
        return int(rng.integers(self.crop // LATENT_STRIDE, most + 1)) * LATENT_STRIDE

    def _sized(self, hq: Tensor, lq: Tensor, flow: Tensor) -> Clips:
        """Clips of the crop's size from parts (N,T,3,S,S), (N,T,3,S/4,S/4), (N,T-1,2,s,s)."""
        crop, shape = self.crop, lq.shape[:2]
        small = lq.flatten(0, 1)
        enlarged = resize_bicubic(small, crop, crop).unflatten(0, shape)
        if hq.shape[-1] != crop:
            reduced = resize_bicubic(hq.flatten(0, 1), crop, crop, "pil")
            flow, hq = flow * (crop / hq.shape[-1]), reduced.unflatten(0, shape)
        if self.frames > 1:
            full = LATENT_STRIDE * F.interpolate(flow.flatten(0, 1), (crop, crop), mode="bilinear")
        else:
            full = flow
        full = full.reshape(self.clips, self.frames - 1, 2, crop, crop)
        return Clips(hq, enlarged, full, small.unflatten(0, shape))

    def _refill_until(self, step: int) -> None:
        due = self.config.warm_refills + 1 + step // self.config.refill_every
        if due < self.refills:  # back at an earlier step: later refills do not exist yet
            self.refills = 0
        for number in preparing(range(max(self.refills, due - self.slots), due)):
            self._refill(number)
            self.refills = number + 1

    @torch.no_grad()
    def _refill(self, number: int) -> None:
        rng, count = np.random.default_rng((self.seed, number)), self.config.at_a_time
        generator = self._generator(rng)
        if self.frames == 1:
            hq, flow = self.pictures.stills(count, rng), None
        else:
            hq, flow = self.pictures.clips(count, self.frames, rng)
        # Without a share nothing is drawn, so that older runs continue as they began.
        odd = int(rng.binomial(count, self.config.odd_share)) if self.config.odd_share else 0
        drawn = odd // 2  # of these, charts
        coloured = slice(count - odd, count - drawn)
        hq[coloured] = recoloured(hq[coloured], rng)
        lq = self.bank.degrade(hq, rng, generator)
        light = int(rng.binomial(count, self.config.light_share))
        lossless = torch.zeros(count, dtype=torch.bool, device=hq.device)
        if light:
            lq[:light] = lightly_degraded(hq[:light], rng)
        if drawn:
            true, small, repeating = charts(drawn, lq.shape[-1], rng, hq.device)
            hq[-drawn:], lq[-drawn:] = true[:, None], small[:, None]
            lossless[-drawn:] = repeating
            if flow is not None:
                flow[-drawn:] = 0
        start = number % self.slots * count
        rows = slice(start, start + count)
        self.hq[rows] = (255 * hq).round().byte()
        self.lq[rows] = (255 * lq).round().byte()
        self.lossless[rows] = lossless
        if flow is not None:
            self.flow[rows] = flow.half()

    def _generator(self, rng: np.random.Generator) -> Generator:
        return Generator(self.hq.device).manual_seed(int(rng.integers(2**62)))


def lightly_degraded(hq_frames: Tensor, rng: np.random.Generator) -> Tensor:
    """(N,T,3,H,W), four times smaller (bicubic, antialiased), and JPEG of quality 70 to 100."""
    size = [side // 4 for side in hq_frames.shape[-2:]]
    small = F.interpolate(hq_frames.flatten(0, 1), size, mode="bicubic", antialias=True).clamp(0, 1)
    quality = torch.from_numpy(rng.uniform(70, 100, len(hq_frames))).float().to(hq_frames.device)
    return jpeg(small.unflatten(0, hq_frames.shape[:2]), quality)


def smooth_pairs(
    count: int, size: int, rng: np.random.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(true, degraded and enlarged) (N,3,S,S): slow waves of colour, lightly degraded, some with a
    little noise. Such ground hides nothing that a decoder adds of its own."""
    hq = torch.zeros(count, 3, size, size, device=device)
    for points, strength in ((2, 0.12), (4, 0.04)):
        noise = torch.from_numpy(rng.standard_normal((count, 3, points, points), np.float32))
        wave = F.interpolate(noise.to(device), (size, size), mode="bicubic", align_corners=True)
        hq += strength * wave
    base = 0.5 * rng.random((count, 3, 1, 1)) + 0.5 * rng.random((count, 1, 1, 1))
    hq = (hq + torch.from_numpy(base).float().to(device)).clamp(0, 1)
    small = lightly_degraded(hq[:, None], rng)[:, 0]
    levels = 0.01 * rng.random((count, 1, 1, 1)) * rng.integers(2, size=(count, 1, 1, 1))
    noise = torch.from_numpy(rng.standard_normal(small.shape, np.float32) * levels).float()
    small = (small + noise.to(device)).clamp(0, 1)
    return hq, resize_bicubic((255 * small).round() / 255, size, size)


def _cut(tensor: Tensor, rows: Tensor, offsets: Tensor, side: int) -> Tensor:
    """tensor (M,T,C,H,W) at rows (N,), from offsets (2,N): (N,T,C,side,side)."""
    span = torch.arange(side, device=tensor.device)
    y, x = (offset[:, None] + span for offset in offsets)
    # Indices separated by slices come first in the result: (N,side,side,T,C).
    cut = tensor[rows[:, None, None], :, :, y[:, :, None], x[:, None, :]]
    return cut.permute(0, 3, 4, 1, 2)
