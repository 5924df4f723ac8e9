"""Algorithm 1: C-LoRA and CFR by consistency losses, D-LoRA by enhancement losses, in turn.

Names, beside the paper's: theta_1 ``consistency``, theta_2 ``detail``, mu ``retrieval``, E_phi
``encode``, R_mu ``retrieve``, epsilon_{phi,theta_1,theta_2} ``refine``, D_phi ``decode``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from dloral.frames.resize import shrink_for_flow
from dloral.models.adapters import CONSISTENCY, DETAIL, adapter_parameters
from dloral.pipeline import DLoRALPipeline
from dloral.training.losses import (
    FeatureDistance,
    charbonnier,
    grid,
    log_error,
    temporal_difference,
)
from dloral.training.packs import ClipBatch, Pack, psnr
from dloral.training.schedule import StageSchedule


@dataclass(frozen=True)
class Algorithm1Config:
    """``clips`` clips of three frames a step, cropped to ``crop`` pixels: two outputs each.

    ``first_frame_share`` of the clips are shown as if each frame were the first of its clip, its
    own predecessor, since stills and first frames are restored so.

    ``scale_choices``: in a stage, the other LoRA's scale is drawn from these, so that the sliders
    keep their meaning apart from each other (our decision; the paper has both at 1).
    """

    clips: int = 4
    crop: int = 128
    first_frame_share: float = 0.25
    scale_choices: tuple[float, ...] = (0.0, 1.0)
    schedule: StageSchedule = field(default_factory=StageSchedule)


class Algorithm1Task:
    """Trains theta_1 and mu, or theta_2, by the stage; everything else stays as it is."""

    def __init__(
        self,
        pipe: DLoRALPipeline,
        pack: Pack,
        held_out: Pack,
        config: Algorithm1Config,
        feature_distance: FeatureDistance | None,
    ) -> None:
        self.pipe, self.pack, self.held_out, self.config = pipe, pack, held_out, config
        self.feature_distance = feature_distance
        self.modules: Mapping[str, nn.Module] = {"unet": pipe.unet, "retrieval": pipe.retrieval}
        for part in (pipe.vae, pipe.unet, pipe.flow):
            part.requires_grad_(False)
        self._groups = {
            "consistency": {
                **_named("unet", adapter_parameters(pipe.unet, CONSISTENCY)),
                **_named("retrieval", dict(pipe.retrieval.named_parameters())),
            },
            "enhancement": _named("unet", adapter_parameters(pipe.unet, DETAIL)),
        }

    def trainable(self) -> dict[str, nn.Parameter]:
        return self._groups["consistency"] | self._groups["enhancement"]

    def active(self, step: int) -> set[str]:
        return set(self._groups[self.config.schedule.stage_at(step + 1)])

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Lines 6 to 10 and 16 to 20: sample, forward, losses by the stage's weights."""
        stage = self.config.schedule.stage_at(step + 1)
        weights = self.config.schedule.weights_at(step + 1)
        batch = self.pack.draw_clips(rng, self.config.clips, self.config.crop)
        other = float(rng.choice(self.config.scale_choices))
        self.pipe.unet.set_scales(
            consistency=1.0 if stage == "consistency" else other,
            detail=1.0 if stage == "enhancement" else other,
            merge=False,
        )
        alone = torch.from_numpy(rng.random(self.config.clips) < self.config.first_frame_share)
        restored = self.forward(batch, alone)
        return {
            name: weight * self._loss(name, restored, batch)
            for name, weight in sorted(weights.items())
            if weight
        }

    def forward(self, batch: ClipBatch, alone: Tensor | None = None) -> Tensor:
        """x_hat of every frame that has a predecessor, (B,T-1,3,H,W).

        In clips where ``alone`` (B,) is true a frame is its own predecessor.
        """
        shape = batch.lq_frames.shape[:2]
        lq_frames = batch.lq_frames.flatten(0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                lq_latents = self.pipe.encode(lq_frames).unflatten(0, shape)
                small_frames = shrink_for_flow(lq_frames).unflatten(0, shape)
            previous = [part[:, :-1].clone() for part in (lq_latents, small_frames)]
            if alone is not None:
                for part, whole in zip(previous, (lq_latents, small_frames), strict=True):
                    part[alone] = whole[alone, 1:]
            retrieved, aligned = self.pipe.retrieve(
                lq_latents[:, 1:].flatten(0, 1),
                small_frames[:, 1:].flatten(0, 1),
                *(part.flatten(0, 1)[None] for part in previous),
            )
            restored_latents = self.pipe.refine(aligned, retrieved, None)
            restored = self.pipe.decode(restored_latents, batch.lq_frames[:, 1:].flatten(0, 1))
        return restored.unflatten(0, (shape[0], shape[1] - 1))

    def _loss(self, name: str, restored: Tensor, batch: ClipBatch) -> Tensor:
        hq_frames = batch.hq_frames[:, 1:]
        losses: dict[str, Callable[[], Tensor]] = {
            "pixel": lambda: charbonnier(restored.flatten(0, 1), hq_frames.flatten(0, 1)),
            "log_error": lambda: log_error(restored.flatten(0, 1), hq_frames.flatten(0, 1)),
            "temporal": lambda: temporal_difference(
                restored[:, 1:].flatten(0, 1),
                restored[:, :-1].flatten(0, 1),
                hq_frames[:, 1:].flatten(0, 1),
                hq_frames[:, :-1].flatten(0, 1),
                batch.flow[:, 1:].flatten(0, 1),
            ),
            "grid": lambda: grid(restored.flatten(0, 1), hq_frames.flatten(0, 1)),
            "feature": lambda: self._features(restored.flatten(0, 1), hq_frames.flatten(0, 1)),
        }
        return losses[name]().mean()

    def _features(self, restored: Tensor, hq_frames: Tensor) -> Tensor:
        assert self.feature_distance is not None, "the schedule names a loss without its network"
        with torch.autocast("cpu", torch.bfloat16):
            return self.feature_distance(restored, hq_frames)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On held-out clips: PSNR gain over bicubic and temporal difference, by (c, d)."""
        batch = self.held_out.clips(slice(None))
        outputs = batch.hq_frames[:, 1:]
        bicubic = psnr(batch.lq_frames[:, 1:].flatten(0, 1), outputs.flatten(0, 1))
        figures = {}
        for scales in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)):
            self.pipe.unet.set_scales(consistency=scales[0], detail=scales[1], merge=False)
            restored = self.forward(batch)
            gain = psnr(restored.flatten(0, 1), outputs.flatten(0, 1)) - bicubic
            label = f"{scales[0]:g}/{scales[1]:g}"
            figures[f"psnr_gain {label}"] = gain.mean().item()
            figures[f"temporal {label}"] = self._loss("temporal", restored, batch).item()
        return figures


def _named(part: str, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {f"{part}.{name}": parameter for name, parameter in parameters.items()}
