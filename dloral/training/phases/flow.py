"""The compact flow net: SPyNet on small low-quality frames, supervised by exact flow.

The full model's flow net comes with weights. Here photographs in motion give pairs of known flow
(``dloral.data.motion``), and the net sees what it will see at inference: degraded frames at latent
resolution.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dloral.data.clips import Clips, ClipSource, Draw, turned
from dloral.data.spec import check, on_grid
from dloral.errors import OptionError
from dloral.frames.resize import shrink_for_flow
from dloral.models.flow import warp
from dloral.pipeline import DLoRALPipeline
from dloral.training.phases.phase import Phase


@dataclass(frozen=True)
class FlowConfig:
    """A step: the pairs of ``clips`` clips of ``frames`` frames and ``crop`` pixels, flipped and
    rotated, and ``moved_pairs`` pairs of their frames moved by at most ``most_shift`` cells: to
    learn matching, a net needs many images and motions. Every pyramid level is supervised, each
    with ``coarser_weight`` times the weight of the next finer one.

    For the first ``warm_up_share`` of the steps one level is trained alone, on motion of at most
    ``warm_up_shift`` cells; then all levels start as copies of it. Trained together from the start
    they stay at "no motion". The warm-up uses quarters of the true frames: matching is learned some
    hundred steps sooner on sharp frames, and such small motion needs no larger images."""

    clips: int = 8
    frames: int = 3
    crop: int = 256
    moved_pairs: int = 32
    warm_up_share: float = 0.25
    warm_up_shift: float = 1.0
    most_shift: float = 5.0
    coarser_weight: float = 0.7

    def __post_init__(self) -> None:
        check(
            self,
            {
                "clips": (self.clips >= 1, "1 or more"),
                "frames": (self.frames >= 2, "2 or more"),
                "crop": on_grid(self.crop),
                "moved_pairs": (self.moved_pairs >= 1, "1 or more"),
                "warm_up_share": (0 <= self.warm_up_share < 1, "a share from 0 to less than 1"),
            },
        )


@dataclass(frozen=True)
class Pairs:
    """current, previous (N,3,h,w) small frames and flow (N,2,h,w) between them, in cells;
    ``known`` (N,1,h,w) is 1 where the flow is known, 0 where it leaves the frame."""

    current: Tensor
    previous: Tensor
    flow: Tensor
    known: Tensor

    def __getitem__(self, which: Tensor) -> "Pairs":
        return Pairs(*(part[which] for part in self.parts()))

    def __add__(self, other: "Pairs") -> "Pairs":
        return Pairs(*map(torch.cat, zip(self.parts(), other.parts(), strict=True)))

    def turned(self, rng: np.random.Generator) -> "Pairs":
        """All mirrored or transposed in the same one of eight ways, for clips whose flow is known
        either everywhere or nowhere."""
        (current, previous), flow = turned((self.current, self.previous), self.flow, rng)
        return Pairs(current.contiguous(), previous.contiguous(), flow.contiguous(), self.known)

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.current, self.previous, self.flow, self.known


class FlowPhase(Phase):
    """Trains ``pipe.flow`` alone on the end-point error. ``steps``: of the whole phase."""

    def __init__(
        self,
        pipe: DLoRALPipeline,
        source: ClipSource,
        config: FlowConfig,
        steps: int,
        held_out: Clips | None = None,
    ) -> None:
        self.pipe, self.source, self.config = pipe, source, config
        halvings = len(pipe.flow.pyramid) - 1
        multiple = pipe.latent_stride << halvings
        if config.crop % multiple:
            raise OptionError(
                "{option} is {value}, which the flow net's {levels} levels cannot halve evenly",
                remedy=f"give a multiple of {multiple}",
                option="flow.crop",
                value=config.crop,
                levels=halvings + 1,
            )
        self.warm_up_steps = round(config.warm_up_share * steps)
        stride = pipe.latent_stride
        self.held_out = None if held_out is None else known_pairs(held_out, stride)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {f"flow.{name}": p for name, p in self.pipe.flow.named_parameters()}

    def begin(self, step: int) -> set[str]:
        """After the warm-up every level starts as a copy of the one that learned."""
        if step != self.warm_up_steps or not step:
            return set()
        learned = self.pipe.flow.pyramid[-1].state_dict()
        for level in self.pipe.flow.pyramid[:-1]:
            level.load_state_dict(learned)
        return set(self.trainable())

    def active(self, step: int) -> set[str]:
        everything = self.trainable()
        if step >= self.warm_up_steps:
            return set(everything)
        finest = f"flow.pyramid.{len(self.pipe.flow.pyramid) - 1}."
        return {name for name in everything if name.startswith(finest)}

    def losses(self, draw: Draw) -> dict[str, Tensor]:
        rng, clips = draw.rng, self.source.draw(draw)
        warming_up = draw.step < self.warm_up_steps
        frames = clips.hq_frames if warming_up else clips.lq_frames
        stills = F.interpolate(
            frames.flatten(0, 1), scale_factor=0.25, mode="bicubic", antialias=True
        )
        chosen = torch.from_numpy(rng.integers(len(stills), size=self.config.moved_pairs))
        stills = stills[chosen.to(stills.device)]
        if warming_up:
            return {"end_point_error": self._taught_alone(quarters(stills, rng), rng)}
        pairs = moved_pairs(stills, self.config.most_shift, rng)
        if clips.flow is not None:
            pairs = pairs + known_pairs(clips, self.pipe.latent_stride).turned(rng)
        return {"end_point_error": self._taught(pairs)}

    def _taught_alone(self, stills: Tensor, rng: np.random.Generator) -> Tensor:
        pairs = moved_pairs(stills, self.config.warm_up_shift, rng)
        net = self.pipe.flow
        current, previous = (
            net.normalise(2 * part - 1) for part in (pairs.current, pairs.previous)
        )
        flow = net.correct(net.pyramid[-1], current, previous, torch.zeros_like(pairs.flow))
        return end_point_error(flow, pairs.flow, pairs.known)

    def _taught(self, pairs: Pairs) -> Tensor:
        flows = self.pipe.flow.coarse_to_fine(2 * pairs.current - 1, 2 * pairs.previous - 1)
        wanted, known, weight = pairs.flow, pairs.known, 1.0
        total = wanted.new_zeros(())
        for level, flow in enumerate(reversed(flows)):
            if level:  # a cell is twice as large as the finer level's
                wanted, known = F.avg_pool2d(wanted, 2) / 2, F.avg_pool2d(known, 2)
                weight *= self.config.coarser_weight
            total = total + weight * end_point_error(flow, wanted, known)
        return total

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The end-point error in latent cells, and that of zero flow."""
        pairs = self.held_out
        if pairs is None:
            return {}
        flow = self.pipe.estimate_flow(pairs.current, pairs.previous)
        nothing = torch.zeros_like(flow)
        return {
            "end_point_error": end_point_error(flow, pairs.flow, pairs.known).item(),
            "of_no_flow": end_point_error(nothing, pairs.flow, pairs.known).item(),
        }


def known_pairs(clips: Clips, stride: int) -> Pairs:
    """Every pair of consecutive frames, ``stride`` times smaller; for film, whose flow is NaN,
    nothing is known."""
    shape = clips.lq_frames.shape[:2]
    small = shrink_for_flow(clips.lq_frames.flatten(0, 1), stride).unflatten(0, shape)
    assert clips.flow is not None, "flow is learned from clips whose flow is known"
    flow = F.avg_pool2d(clips.flow.flatten(0, 1), stride) / stride
    known = torch.isfinite(flow[:, :1]).float()
    flow = flow.nan_to_num()
    return Pairs(small[:, 1:].flatten(0, 1), small[:, :-1].flatten(0, 1), flow, known)


def quarters(stills: Tensor, rng: np.random.Generator) -> Tensor:
    """The same part of all stills (N,3,H,W), half as high and wide; all of them if they are small
    (16 pixels or less)."""
    height, width = stills.shape[-2:]
    if min(height, width) <= 16:
        return stills
    top, left = rng.integers(height // 2 + 1), rng.integers(width // 2 + 1)
    return stills[..., top : top + height // 2, left : left + width // 2]


def moved_pairs(stills: Tensor, most_shift: float, rng: np.random.Generator) -> Pairs:
    """Pairs of low-quality stills (N,3,2h,2w) and slightly shifted, zoomed, rotated and sheared
    copies.

    A low-quality image has two pixels per latent cell (at the usual scale of 4), so moving it and
    halving both gives nearly what :func:`shrink_for_flow` makes of upscaled frames.
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
    device = stills.device
    places = places.to(device)
    matrix, offset = (torch.from_numpy(part).float().to(device) for part in (matrices, shift))
    source = torch.einsum("nij,jhw->nihw", matrix, places) + offset[:, :, None, None]
    moved = warp(stills, source - places, padding="border")
    limits = stills.new_tensor([(width - 1) / 2, (height - 1) / 2]).view(2, 1, 1)
    known = (source.abs() <= limits).all(dim=1, keepdim=True).float()
    noise = torch.from_numpy(rng.normal(0, 0.01, moved.shape)).float().to(device)
    current, previous = (
        F.interpolate(part, scale_factor=0.5, mode="bicubic", align_corners=False)
        for part in (moved + noise, stills)
    )
    flow = F.avg_pool2d(source - places, 2) / 2
    return Pairs(current, previous, flow, F.avg_pool2d(known, 2))


def end_point_error(flow: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Mean length of the flow error (N,2,h,w) where the flow is known (N,1,h,w), in cells."""
    lengths = ((flow - wanted).square().sum(dim=1, keepdim=True) + 1e-6).sqrt()
    return (known * lengths).sum() / known.sum().clamp(min=1e-6)
