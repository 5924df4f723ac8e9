"""Removing a decoder's grid: its output stays the same otherwise, and nothing else is trained.

In smooth areas nothing hides the pattern that a decoder with pixel shuffles adds, so it is trained
there (our decision). Elsewhere its earlier output is its target, so the figures hold, which a grid
penalty in a longer training does not guarantee.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dloral.data.clips import Clips, ClipSource, Draw
from dloral.data.pool import smooth_pairs
from dloral.data.spec import check, on_grid
from dloral.models import vae_kinds
from dloral.pipeline import DLoRALPipeline
from dloral.training.losses import grid
from dloral.training.phases.phase import Phase


@dataclass(frozen=True)
class DecoderConfig:
    """A step: ``clips`` crops of ``crop`` pixels whose output is to stay the same, and ``smooth``
    smooth ones, half of them degraded, to remove the grid from. ``keep``, ``penalty``: their
    weights."""

    clips: int = 4
    crop: int = 128
    smooth: int = 6
    keep: float = 8.0
    penalty: float = 300.0

    def __post_init__(self) -> None:
        check(
            self,
            {
                "clips": (self.clips >= 1, "1 or more"),
                "crop": on_grid(self.crop),
                "smooth": (self.smooth >= 2, "2 or more"),
                "keep": (self.keep >= 0, "0 or more"),
                "penalty": (self.penalty >= 0, "0 or more"),
            },
        )


class DecoderPhase(Phase):
    """Trains a compact VAE's decoder alone; the rest of the pipeline stays bit-identical."""

    def __init__(
        self,
        pipe: DLoRALPipeline,
        source: ClipSource,
        config: DecoderConfig,
        held_out: Clips | None = None,
    ) -> None:
        self.pipe, self.source, self.config, self.held_out = pipe, source, config, held_out
        for module in (pipe.vae, pipe.unet, pipe.flow, pipe.retrieval):
            module.requires_grad_(False)
        self.teacher = copy.deepcopy(pipe.vae)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {
            f"vae.{name}": weight
            for name, weight in self.pipe.vae.named_parameters()
            if not name.startswith("encoder.")
        }

    def losses(self, draw: Draw) -> dict[str, Tensor]:
        found = self.measured(self.source.draw(draw).lq_frames[:, -1], draw)
        return {
            "kept": self.config.keep * found["kept"],
            "grid": self.config.penalty * (found["clean"] + found["degraded"]) / 2,
        }

    def measured(self, lq_frames: Tensor, draw: Draw) -> dict[str, Tensor]:
        """``kept``: the distance from the earlier decoder's output; ``clean``, ``degraded``: the
        grid in smooth areas, undegraded and lightly degraded."""
        config, pipe, kept = self.config, self.pipe, len(lq_frames)
        device = lq_frames.device
        smooth, degraded = smooth_pairs(config.smooth, config.crop, draw.rng, device)
        clean = config.smooth // 2
        inputs = torch.cat([lq_frames, smooth[:clean], degraded[clean:]])
        with torch.no_grad():
            latents = pipe.encode(inputs.contiguous(memory_format=torch.channels_last))
            latents = pipe.refine(latents, latents, None)
            wanted = vae_kinds.decode(self.teacher, latents[:kept], inputs[:kept])
        drawn = vae_kinds.decode(pipe.vae, latents, inputs)
        frames = inputs[kept:] + drawn[kept:] / 2  # what a pipeline's decode adds
        patterns = grid(frames, smooth)
        return {
            "kept": (drawn[:kept] - wanted).abs().mean(),
            "clean": patterns[:clean].mean(),
            "degraded": patterns[clean:].mean(),
        }

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The grid in smooth areas and the change in held-out frames, in grey levels."""
        if self.held_out is None:
            return {}
        lq_frames = self.held_out.lq_frames[: self.config.clips, -1]
        lq_frames = lq_frames[..., : self.config.crop, : self.config.crop]
        draw = Draw(0, 0, np.random.default_rng(0))
        return {n: 255 * v.item() for n, v in self.measured(lq_frames, draw).items()}
