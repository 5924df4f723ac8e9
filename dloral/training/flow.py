"""The compact flow net: SPyNet on small low-quality frames, taught by exact flow.

The full model's comes with its weights. Here photographs in motion give pairs whose flow is known
(``dloral.training.motion``), and the net sees what it will see in use: degraded frames, brought to
latent resolution.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dloral.frames.resize import LATENT_STRIDE, shrink_for_flow
from dloral.pipeline import DLoRALPipeline
from dloral.training.packs import ClipBatch, Pack


@dataclass(frozen=True)
class FlowConfig:
    """``clips`` clips of ``crop`` pixels a step; every consecutive pair of frames counts, both
    pairs that are still as well, since a still picture must give no flow."""

    clips: int = 12
    crop: int = 256
    still_share: float = 0.1


class FlowTask:
    """Trains ``pipe.flow`` alone on the end-point error."""

    def __init__(
        self, pipe: DLoRALPipeline, pack: Pack, held_out: Pack, config: FlowConfig
    ) -> None:
        self.pipe, self.pack, self.held_out, self.config = pipe, pack, held_out, config
        self.modules: Mapping[str, nn.Module] = {"flow": pipe.flow}

    def trainable(self) -> dict[str, nn.Parameter]:
        return {f"flow.{name}": p for name, p in self.pipe.flow.named_parameters()}

    def active(self, step: int) -> set[str]:
        return set(self.trainable())

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        batch = self.pack.draw_clips(rng, self.config.clips, self.config.crop)
        current, previous, wanted = flow_pairs(batch)
        still = torch.from_numpy(rng.random(len(current)) < self.config.still_share)
        previous[still] = current[still]
        wanted[still] = 0
        return {"end_point_error": end_point_error(self.pipe, current, previous, wanted)}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        current, previous, wanted = flow_pairs(self.held_out.clips(slice(None)))
        return {
            "end_point_error": end_point_error(self.pipe, current, previous, wanted).item(),
            "of_no_flow": wanted.norm(dim=1).mean().item(),
        }


def flow_pairs(batch: ClipBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Small current and previous frames (N,3,h,w) and the flow between them (N,2,h,w) in cells."""
    shape = batch.lq_frames.shape[:2]
    small = shrink_for_flow(batch.lq_frames.flatten(0, 1)).unflatten(0, shape)
    cells = F.avg_pool2d(batch.flow.flatten(0, 1), LATENT_STRIDE) / LATENT_STRIDE
    return small[:, 1:].flatten(0, 1), small[:, :-1].flatten(0, 1).clone(), cells


def end_point_error(
    pipe: DLoRALPipeline, current: Tensor, previous: Tensor, wanted: Tensor
) -> Tensor:
    """Mean length of the flow's error, in latent cells."""
    return (pipe.estimate_flow(current, previous) - wanted).norm(dim=1).mean()
