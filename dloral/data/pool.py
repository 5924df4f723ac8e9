"""Clips made on the device while it trains: the newest thousands, drawn from again and again.

Legend: N clips, T frames, S pixels a side, cells of 8 pixels. Frames are uint8 where they are kept
and float32 RGB in [0, 1] where they are used.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from dloral.data.batch_degradation import DegradationBank, jpeg
from dloral.data.clips import Clips, Draw
from dloral.data.pictures import Pictures
from dloral.data.spec import check
from dloral.frames.resize import LATENT_STRIDE, resize_bicubic


@dataclass(frozen=True)
class PoolConfig:
    """``held`` clips, the newest; ``at_a_time`` are made together, every ``refill_every`` steps,
    after ``warm_refills`` before the first. ``light_share`` of them are made smaller and lightly
    compressed, no more: what is hardly degraded must not be spoilt. Degradations are put together
    from ``draws`` that are made once."""

    held: int = 24_000
    at_a_time: int = 192
    refill_every: int = 5
    warm_refills: int = 12
    light_share: float = 0.08
    draws: int = 2500

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
            },
        )


class PoolClips:
    """A pool as a :class:`~dloral.data.clips.ClipSource`: ``clips`` of ``frames`` frames a
    micro-batch, ``crop`` pixels a side.

    Refill ``k`` is drawn from ``(seed, k)`` alone, and a draw at a step sees the refills that are
    due by then, first in, first out. So a resumed run, which makes again those that are still in
    the pool, draws what an unbroken one does, and so does each of several processes.
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
        self.clips, self.crop, self.seed = clips, crop, seed
        bank = DegradationBank(config.draws, seed, pictures.device)
        self.pool = PairPool(
            pictures, bank, frames, config.held, config.at_a_time, config.light_share
        )

    def draw(self, draw: Draw) -> Clips:
        self._refill_until(draw.step)
        return self.pool.draw(self.clips, self.crop, draw.rng, self._generator(draw.rng))

    def _refill_until(self, step: int) -> None:
        due = self.config.warm_refills + 1 + step // self.config.refill_every
        if due < self.pool.refills:  # an earlier step again: what came later is not there yet
            self.pool.refills = 0
        for number in range(max(self.pool.refills, due - self.pool.slots), due):
            self.pool.refills = number
            rng = np.random.default_rng((self.seed, number))
            self.pool.refill(rng, self._generator(rng))

    def _generator(self, rng: np.random.Generator) -> Generator:
        device = self.pool.pictures.device
        return Generator(device).manual_seed(int(rng.integers(2**62)))


class PairPool:
    """The newest ``capacity`` degraded clips of T frames; the oldest make room for new ones.

    ``light_share`` of the clips are made smaller and lightly compressed, no more: what is hardly
    degraded must not be spoilt.
    """

    def __init__(
        self,
        pictures: Pictures,
        bank: DegradationBank,
        num_frames: int,
        capacity: int,
        at_a_time: int,
        light_share: float = 0.0,
    ) -> None:
        size, device = pictures.size, pictures.device
        self.pictures, self.bank = pictures, bank
        self.num_frames, self.at_a_time = num_frames, at_a_time
        self.light_share = light_share
        self.slots = capacity // at_a_time
        shape, cells = (self.slots * at_a_time, num_frames), size // LATENT_STRIDE
        self.hq = torch.empty(*shape, 3, size, size, dtype=torch.uint8, device=device)
        self.lq = torch.empty(*shape, 3, size // 4, size // 4, dtype=torch.uint8, device=device)
        self.flow = torch.zeros(
            shape[0], num_frames - 1, 2, cells, cells, dtype=torch.float16, device=device
        )
        self.refills = 0

    @property
    def filled(self) -> int:
        """How many clips there are."""
        return min(self.refills, self.slots) * self.at_a_time

    @torch.no_grad()
    def refill(self, rng: np.random.Generator, generator: Generator | None = None) -> None:
        """Make ``at_a_time`` new clips; ``generator`` (torch's own without one) draws noise."""
        if self.num_frames == 1:
            hq, flow = self.pictures.stills(self.at_a_time, rng), None
        else:
            hq, flow = self.pictures.clips(self.at_a_time, self.num_frames, rng)
        lq = self.bank.degrade(hq, rng, generator)
        light = int(rng.binomial(self.at_a_time, self.light_share))
        if light:
            lq[:light] = lightly_degraded(hq[:light], rng)
        start = self.refills % self.slots * self.at_a_time
        rows = slice(start, start + self.at_a_time)
        self.hq[rows] = (255 * hq).round().byte()
        self.lq[rows] = (255 * lq).round().byte()
        if flow is not None:
            self.flow[rows] = flow.half()
        self.refills += 1

    def draw(
        self, count: int, crop: int, rng: np.random.Generator, generator: Generator | None = None
    ) -> Clips:
        """``count`` random clips, each cut to ``crop`` pixels somewhere on the latent grid, all of
        them turned and mirrored in the same one of eight ways. Flow is in pixels at full size."""
        device = self.hq.device
        # On the device, so that a step never waits for a copy of a few numbers.
        rows = torch.randint(self.filled, (count,), device=device, generator=generator)
        steps = (self.hq.shape[-1] - crop) // LATENT_STRIDE
        offsets = torch.randint(steps + 1, (2, count), device=device, generator=generator)
        parts = [
            _cut(tensor, rows, unit * offsets, side)
            for tensor, unit, side in (
                (self.hq, LATENT_STRIDE, crop),
                (self.lq, LATENT_STRIDE // 4, crop // 4),
                (self.flow, 1, crop // LATENT_STRIDE),
            )
        ]
        hq, lq, flow = _turned(parts[0], parts[1], parts[2], rng)
        small = lq.flatten(0, 1).float() / 255
        enlarged = resize_bicubic(small, crop, crop).unflatten(0, lq.shape[:2])
        full = flow.flatten(0, 1).float()
        if self.num_frames > 1:
            full = LATENT_STRIDE * F.interpolate(full, (crop, crop), mode="bilinear")
        full = full.reshape(count, self.num_frames - 1, 2, crop, crop)
        return Clips(hq.float() / 255, enlarged, full, small.unflatten(0, lq.shape[:2]))


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
    little noise. On such ground nothing hides what a decoder draws of itself."""
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
    # Indices on both sides of slices come first in the result: (N,side,side,T,C).
    cut = tensor[rows[:, None, None], :, :, y[:, :, None], x[:, None, :]]
    return cut.permute(0, 3, 4, 1, 2)


def _turned(
    hq: Tensor, lq: Tensor, flow: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    for axis, sign in ((-1, (-1.0, 1.0)), (-2, (1.0, -1.0))):
        if rng.integers(2):
            hq, lq, flow = (part.flip(axis) for part in (hq, lq, flow))
            flow = flow * flow.new_tensor(sign).view(2, 1, 1)
    if rng.integers(2):
        hq, lq, flow = (part.transpose(-1, -2) for part in (hq, lq, flow))
        flow = flow.flip(2)
    return hq, lq, flow
