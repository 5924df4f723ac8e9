"""The compact flow net: SPyNet on small low-quality frames, taught by exact flow.

The full model's comes with its weights. Here photographs in motion give pairs whose flow is known
(``dloral.data.motion``), and the net sees what it will see in use: degraded frames, brought to
latent resolution.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dloral.data.clips import Clips
from dloral.data.packs import Pack
from dloral.frames.resize import LATENT_STRIDE, shrink_for_flow
from dloral.models.flow import warp
from dloral.pipeline import DLoRALPipeline


@dataclass(frozen=True)
class FlowConfig:
    """A step: ``clip_pairs`` pairs from clips, flipped and turned, and ``moved_pairs`` from still
    pictures moved by ``most_shift`` cells at most: there are far more stills than clips, and a net
    that must learn to match needs many pictures. Every pyramid level is taught, each coarser one
    with ``coarser_weight`` times the weight of the next finer.

    For the first ``warm_up_steps`` one level learns alone, on motion of ``warm_up_shift`` cells;
    then all levels start as it. Taught together from the start they stay at "no motion"."""

    warm_up_steps: int = 1000
    warm_up_shift: float = 1.0

    clip_pairs: int = 16
    moved_pairs: int = 32
    most_shift: float = 5.0
    coarser_weight: float = 0.7


@dataclass(frozen=True)
class Pairs:
    """current, previous (N,3,h,w) small frames and flow (N,2,h,w) between them, in cells;
    ``known`` (N,1,h,w) is 1 where the flow is, 0 where it leaves the picture."""

    current: Tensor
    previous: Tensor
    flow: Tensor
    known: Tensor

    def __getitem__(self, which: Tensor) -> "Pairs":
        return Pairs(*(part[which] for part in self.parts()))

    def __add__(self, other: "Pairs") -> "Pairs":
        return Pairs(*map(torch.cat, zip(self.parts(), other.parts(), strict=True)))

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.current, self.previous, self.flow, self.known


class FlowTask:
    """Trains ``pipe.flow`` alone on the end-point error."""

    def __init__(
        self, pipe: DLoRALPipeline, pack: Pack, stills: Pack, held_out: Pack, config: FlowConfig
    ) -> None:
        self.pipe, self.stills, self.config = pipe, stills, config
        # A whole pack is small at latent resolution: it stays in memory.
        self.pairs, self.held_out = all_pairs(pack), all_pairs(held_out)
        self.modules: Mapping[str, nn.Module] = {"flow": pipe.flow}

    def trainable(self) -> dict[str, nn.Parameter]:
        return {f"flow.{name}": p for name, p in self.pipe.flow.named_parameters()}

    def active(self, step: int) -> set[str]:
        everything = self.trainable()
        if step >= self.config.warm_up_steps:
            return set(everything)
        finest = f"flow.pyramid.{len(self.pipe.flow.pyramid) - 1}."
        return {name for name in everything if name.startswith(finest)}

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        if step < self.config.warm_up_steps:
            stills = self._draw_stills(rng, self.config.clip_pairs + self.config.moved_pairs)
            return {"end_point_error": self._taught_alone(stills, rng)}
        if step == self.config.warm_up_steps:
            self._spread_level()
        chosen = rng.integers(len(self.pairs.current), size=self.config.clip_pairs)
        pairs = turned(self.pairs[torch.from_numpy(chosen)], rng)
        stills = self._draw_stills(rng, self.config.moved_pairs)
        pairs = pairs + moved_pairs(stills, self.config.most_shift, rng)
        return {"end_point_error": self._taught(pairs)}

    def _draw_stills(self, rng: np.random.Generator, count: int) -> Tensor:
        """Small low-quality pictures (N,3,S/4,S/4)."""
        chosen = np.sort(rng.integers(len(self.stills.lq), size=count))
        return torch.from_numpy(self.stills.lq[chosen, 0].copy()).float() / 255

    def _taught_alone(self, stills: Tensor, rng: np.random.Generator) -> Tensor:
        pairs = moved_pairs(stills, self.config.warm_up_shift, rng)
        net = self.pipe.flow
        current, previous = (
            net.normalise(2 * part - 1) for part in (pairs.current, pairs.previous)
        )
        flow = net.correct(net.pyramid[-1], current, previous, torch.zeros_like(pairs.flow))
        return end_point_error(flow, pairs.flow, pairs.known)

    def _spread_level(self) -> None:
        learned = self.pipe.flow.pyramid[-1].state_dict()
        for level in self.pipe.flow.pyramid[:-1]:
            level.load_state_dict(learned)

    def _taught(self, pairs: Pairs) -> Tensor:
        flows = self.pipe.flow.coarse_to_fine(2 * pairs.current - 1, 2 * pairs.previous - 1)
        wanted, known, weight = pairs.flow, pairs.known, 1.0
        total = wanted.new_zeros(())
        for flow in reversed(flows):
            total = total + weight * end_point_error(flow, wanted, known)
            # A cell of the next level is twice as large.
            wanted, known = F.avg_pool2d(wanted, 2) / 2, F.avg_pool2d(known, 2)
            weight *= self.config.coarser_weight
        return total

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        pairs = self.held_out
        flow = self.pipe.estimate_flow(pairs.current, pairs.previous)
        return {
            "end_point_error": end_point_error(flow, pairs.flow, pairs.known).item(),
            "of_no_flow": pairs.flow.norm(dim=1).mean().item(),
        }


def all_pairs(pack: Pack) -> Pairs:
    """Every pair of consecutive frames of a pack."""
    parts = [flow_pairs(pack.clips([index])) for index in range(len(pack.hq))]
    current, previous, flow = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Pairs(current, previous, flow, torch.ones_like(flow[:, :1]))


def flow_pairs(batch: Clips) -> tuple[Tensor, Tensor, Tensor]:
    """Small current and previous frames (N,3,h,w) and the flow between them (N,2,h,w) in cells."""
    shape = batch.lq_frames.shape[:2]
    small = shrink_for_flow(batch.lq_frames.flatten(0, 1)).unflatten(0, shape)
    assert batch.flow is not None
    cells = F.avg_pool2d(batch.flow.flatten(0, 1), LATENT_STRIDE) / LATENT_STRIDE
    return small[:, 1:].flatten(0, 1), small[:, :-1].flatten(0, 1), cells


def turned(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """The same pairs, all mirrored or transposed in one of eight ways; the flow follows."""
    current, previous, flow = pairs.current, pairs.previous, pairs.flow
    for axis, sign in ((-1, (-1.0, 1.0)), (-2, (1.0, -1.0))):
        if rng.integers(2):
            current, previous, flow = (part.flip(axis) for part in (current, previous, flow))
            flow = flow * flow.new_tensor(sign).view(2, 1, 1)
    if rng.integers(2):
        current, previous = current.transpose(-1, -2), previous.transpose(-1, -2)
        flow = flow.transpose(-1, -2).flip(1)
    known = pairs.known  # of clips: all of it, so it turns into itself
    return Pairs(current.contiguous(), previous.contiguous(), flow.contiguous(), known)


def moved_pairs(stills: Tensor, most_shift: float, rng: np.random.Generator) -> Pairs:
    """Low-quality stills (N,3,2h,2w) and themselves, shifted, zoomed, turned and sheared a little.

    A low-quality picture has two pixels a latent cell (at the usual scale of 4), so moving it and
    halving both is nearly what :func:`shrink_for_flow` makes of enlarged frames.
    """
    count, _, height, width = stills.shape
    matrices = np.eye(2) + rng.normal(0, 0.03, (count, 2, 2))
    distance = 2 * most_shift * rng.random(count) ** 2
    angle = rng.uniform(-np.pi, np.pi, count)
    shift = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    y, x = torch.meshgrid(
        torch.arange(height) - (height - 1) / 2,
        torch.arange(width) - (width - 1) / 2,
        indexing="ij",
    )
    places = torch.stack([x, y])
    matrix, offset = (torch.from_numpy(part).float() for part in (matrices, shift))
    source = torch.einsum("nij,jhw->nihw", matrix, places) + offset[:, :, None, None]
    moved = warp(stills, source - places, padding="border")
    limits = torch.tensor([(width - 1) / 2, (height - 1) / 2]).view(2, 1, 1)
    known = (source.abs() <= limits).all(dim=1, keepdim=True).float()
    noise = torch.from_numpy(rng.normal(0, 0.01, moved.shape)).float()
    current, previous = (
        F.interpolate(part, scale_factor=0.5, mode="bicubic", align_corners=False)
        for part in (moved + noise, stills)
    )
    flow = F.avg_pool2d(source - places, 2) / 2
    return Pairs(current, previous, flow, F.avg_pool2d(known, 2))


def end_point_error(flow: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Mean length of the flow's error (N,2,h,w) where it is known (N,1,h,w), in its cells."""
    lengths = ((flow - wanted).square().sum(dim=1, keepdim=True) + 1e-6).sqrt()
    return (known * lengths).sum() / known.sum()
