"""The compact base: a VAE and a UNet that restore a single frame, trained before any LoRA.

It takes the place that Stable Diffusion has in the full model. Each step restores degraded crops
with the frame as its own predecessor, and puts a few clean crops through the VAE alone, so that
the decoder can draw detail which the degraded input never held: D-LoRA needs that later.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dloral.frames.resize import resize_bicubic
from dloral.pipeline import DLoRALPipeline
from dloral.training.losses import charbonnier


@dataclass(frozen=True)
class BaseConfig:
    """Crops of ``crop`` pixels, ``restored`` degraded ones and ``reconstructed`` clean ones a step."""

    crop: int = 128
    restored: int = 14
    reconstructed: int = 2


class StillPack:
    """Degraded pairs on disk: ``hq.npy`` (N,T,3,S,S) and ``lq.npy`` (N,T,3,S/4,S/4), uint8."""

    def __init__(self, folder: Path) -> None:
        self.hq = np.load(folder / "hq.npy", mmap_mode="r")
        self.lq = np.load(folder / "lq.npy", mmap_mode="r")

    def draw(self, rng: np.random.Generator, count: int, crop: int) -> tuple[Tensor, Tensor]:
        """``count`` random crops: (hq_frames, lq_frames at the same size), (B,3,crop,crop)."""
        size = self.hq.shape[-1]
        step = size // self.lq.shape[-1] * 2  # crops stay on the latent grid
        hq_crops, lq_crops = [], []
        for index in rng.integers(len(self.hq), size=count):
            top, left = step * rng.integers((size - crop) // step + 1, size=2)
            turns, mirrored = rng.integers(4), rng.integers(2)
            hq = torch.from_numpy(np.array(self.hq[index, 0])).float() / 255
            lq = torch.from_numpy(np.array(self.lq[index, 0])).float() / 255
            lq = resize_bicubic(lq[None], size, size)[0]
            for frame, crops in ((hq, hq_crops), (lq, lq_crops)):
                patch = frame[:, top : top + crop, left : left + crop]
                patch = torch.rot90(patch, int(turns), (1, 2))
                crops.append(patch.flip(2) if mirrored else patch)
        return torch.stack(hq_crops), torch.stack(lq_crops)


class BaseTask:
    """Trains the VAE and the UNet of a pipeline without adapters."""

    def __init__(
        self, pipe: DLoRALPipeline, pack: StillPack, held_out: StillPack, config: BaseConfig
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
        return self.trainable().keys()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        count = self.config.restored + self.config.reconstructed
        hq_frames, lq_frames = self.pack.draw(rng, count, self.config.crop)
        inputs = torch.cat([lq_frames[: self.config.restored], hq_frames[self.config.restored :]])
        with torch.autocast("cpu", torch.bfloat16):
            latents = self.pipe.encode(inputs.contiguous(memory_format=torch.channels_last))
            degraded, clean = latents.split([self.config.restored, self.config.reconstructed])
            latents = torch.cat([self.pipe.refine(degraded, degraded, None), clean])
            frames = self.pipe.decode(latents, lq_frames)
        restored, reconstructed = charbonnier(frames, hq_frames).split(
            [self.config.restored, self.config.reconstructed]
        )
        return {
            "restored": restored.sum() / count,
            "reconstructed": reconstructed.sum() / count,
        }

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        hq_frames = torch.from_numpy(np.array(self.held_out.hq[:, 0])).float() / 255
        lq_frames = torch.from_numpy(np.array(self.held_out.lq[:, 0])).float() / 255
        lq_frames = resize_bicubic(lq_frames, *hq_frames.shape[-2:])
        gains, rebuilt = [], []
        for hq, lq in zip(hq_frames.split(8), lq_frames.split(8), strict=True):
            with torch.autocast("cpu", torch.bfloat16):
                latents = self.pipe.encode(lq)
                frames = self.pipe.decode(self.pipe.refine(latents, latents, None), lq)
                copies = self.pipe.decode(self.pipe.encode(hq), lq)
            gains.append(psnr(frames, hq) - psnr(lq, hq))
            rebuilt.append(psnr(copies, hq))
        return {
            "psnr_gain_over_bicubic": torch.cat(gains).mean().item(),
            "reconstruction_psnr": torch.cat(rebuilt).mean().item(),
        }


def psnr(frames: Tensor, hq_frames: Tensor) -> Tensor:
    """PSNR in dB of each frame (B,3,H,W) in [0, 1] -> (B,), all channels and pixels together."""
    error = (frames.clamp(0, 1) - hq_frames).square().mean(dim=(1, 2, 3))
    return -10 * error.log10()
