"""The compact base: a VAE and a UNet that restore a single frame, trained before any LoRA.

It takes the place that Stable Diffusion has in the full model. Each step restores degraded crops
with the frame as its own predecessor, and puts a few clean crops through the VAE alone, so that
the decoder can draw detail which the degraded input never held: D-LoRA needs that later.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dloral.data.packs import Pack, psnr
from dloral.pipeline import DLoRALPipeline
from dloral.training.losses import charbonnier, psnr_loss


@dataclass(frozen=True)
class BaseConfig:
    """A step: crops of ``crop`` pixels, ``restored`` degraded and ``reconstructed`` clean ones.

    Degraded crops are judged by Charbonnier's loss for the first ``charbonnier_steps``, then by
    :func:`psnr_loss`, which is what PSNR averaged over pictures rewards.
    """

    crop: int = 128
    restored: int = 14
    reconstructed: int = 2
    charbonnier_steps: int = 7400


class BaseTask:
    """Trains the VAE and the UNet of a pipeline without adapters."""

    def __init__(
        self, pipe: DLoRALPipeline, pack: Pack, held_out: Pack, config: BaseConfig
    ) -> None:
        self.pipe, self.pack, self.held_out, self.config = pipe, pack, held_out, config
        self.modules: Mapping[str, nn.Module] = {"vae": pipe.vae, "unet": pipe.unet}

    def trainable(self) -> dict[str, nn.Parameter]:
        return {
            f"{part}.{name}": parameter
            for part, module in self.modules.items()
            for name, parameter in module.named_parameters()
        }

    def active(self, step: int) -> set[str]:
        return set(self.trainable())

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        count = self.config.restored + self.config.reconstructed
        hq_frames, lq_frames = self.pack.draw_stills(rng, count, self.config.crop)
        inputs = torch.cat([lq_frames[: self.config.restored], hq_frames[self.config.restored :]])
        latents = self.pipe.encode(inputs.contiguous(memory_format=torch.channels_last))
        degraded, clean = latents.split([self.config.restored, self.config.reconstructed])
        latents = torch.cat([self.pipe.refine(degraded, degraded, None), clean])
        frames = self.pipe.decode(latents, lq_frames)
        split = [self.config.restored, self.config.reconstructed]
        (restored, copied), (hq_restored, hq_copied) = frames.split(split), hq_frames.split(split)
        loss = psnr_loss if step >= self.config.charbonnier_steps else charbonnier
        return {
            "restored": loss(restored, hq_restored).sum() / count,
            "reconstructed": charbonnier(copied, hq_copied).sum() / count,
        }

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        hq_frames, lq_frames = self.held_out.stills(slice(None))
        gains, rebuilt = [], []
        for hq, lq in zip(hq_frames.split(8), lq_frames.split(8), strict=True):
            latents = self.pipe.encode(lq)
            frames = self.pipe.decode(self.pipe.refine(latents, latents, None), lq)
            copies = self.pipe.decode(self.pipe.encode(hq), lq)
            gains.append(psnr(frames, hq) - psnr(lq, hq))
            rebuilt.append(psnr(copies, hq))
        return {
            "psnr_gain_over_bicubic": torch.cat(gains).mean().item(),
            "reconstruction_psnr": torch.cat(rebuilt).mean().item(),
        }
