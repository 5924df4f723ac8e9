"""Classifier score distillation (CSD): detail that the frozen diffusion model considers likely.

The restored latents are noised, and the frozen UNet predicts the clean latents, once for a positive
and once for a negative prompt. The loss pulls the latents to where guidance between the two would
move them (notes, "Training"; Yu et al., "Text-to-3D with Classifier Score Distillation"). The
scoring UNet is the one being trained, with its LoRAs at 0, so there is only one copy.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dloral.errors import OptionError
from dloral.models.adapters import lora_layers
from dloral.models.unet import TwoLoRAUNet
from dloral.pipeline import DLoRALPipeline

NEGATIVE_PROMPT = (
    "painting, oil painting, illustration, drawing, art, sketch, oil painting, cartoon, CG Style, "
    "3D render, unreal engine, blurring, dirty, messy, worst quality, low quality, frames, "
    "watermark, signature, jpeg artifacts, deformed, lowres, over-smooth"
)
"""The public training script's setting."""


@dataclass(frozen=True)
class CSDConfig:
    """``guidance`` between the clip's prompt and ``negative_prompt``; timesteps are drawn between
    ``least_time`` and ``most_time``, as shares of the noise schedule."""

    guidance: float = 7.5
    least_time: float = 0.02
    most_time: float = 0.5
    negative_prompt: str = NEGATIVE_PROMPT

    def __post_init__(self) -> None:
        if not 0 <= self.least_time < self.most_time <= 1:
            raise OptionError(
                f"CSD's times are {self.least_time} to {self.most_time}; give two increasing "
                "shares of the noise schedule, from 0 to 1"
            )


class ScoreDistillation:
    """The loss; raises :class:`OptionError` for a model without text encoder or noise schedule."""

    def __init__(self, pipe: DLoRALPipeline, config: CSDConfig) -> None:
        if pipe.text_encoder is None or pipe.scheduler is None:
            raise OptionError(
                "the loss 'csd' needs a model with a text encoder; use 'adversarial' or "
                "'perceptual' in the enhancement stage instead"
            )
        self.unet: TwoLoRAUNet = pipe.unet
        self.config = config
        self.velocity = pipe.scheduler.config.prediction_type == "v_prediction"
        self.signal_shares: Tensor = pipe.scheduler.alphas_cumprod
        with torch.no_grad():
            negative = pipe.encode_prompt(config.negative_prompt)
        assert negative is not None
        self.negative = negative
        _check_halves(self.unet)

    def __call__(
        self, latents: Tensor, prompt_embeds: Tensor, rng: np.random.Generator, frames: int = 1
    ) -> Tensor:
        """Restored latents (B,C,h,w), embeddings (B or 1, tokens, D) -> loss (B,). Every ``frames``
        consecutive latents are one clip's; they share the noise, each at its own timestep, as in
        the public code."""
        with torch.no_grad(), adapters_off(self.unet):
            wanted = self._wanted(latents.detach(), prompt_embeds, rng, frames)
        return F.mse_loss(latents.float(), wanted, reduction="none").mean(dim=(1, 2, 3))

    def _wanted(
        self, latents: Tensor, prompt_embeds: Tensor, rng: np.random.Generator, frames: int
    ) -> Tensor:
        """Where the latents should go: ``z - (x0_negative - x0_guided) / mean|z - x0_guided|``."""
        latents = latents.float()
        batch, steps = len(latents), len(self.signal_shares)
        times = torch.from_numpy(
            rng.integers(
                int(self.config.least_time * steps), int(self.config.most_time * steps), batch
            )
        ).to(latents.device)
        shape = (batch // frames, *latents.shape[1:])
        noise = torch.from_numpy(rng.standard_normal(shape, np.float32)).to(latents.device)
        noise = noise.repeat_interleave(frames, dim=0)
        share = self.signal_shares.to(latents.device)[times].view(-1, 1, 1, 1)
        noised = share.sqrt() * latents + (1 - share).sqrt() * noise
        positive, negative = (
            self._clean(noised, times, share, embeds)
            for embeds in (prompt_embeds, self.negative.to(latents.device))
        )
        guided = negative + self.config.guidance * (positive - negative)
        scale = (latents - guided).abs().mean(dim=(1, 2, 3), keepdim=True)
        return latents - (negative - guided) / scale.clamp(min=1e-6)

    def _clean(self, noised: Tensor, times: Tensor, share: Tensor, embeds: Tensor) -> Tensor:
        """The clean latents that the frozen UNet predicts from noised ones."""
        # Both halves of conv_in are SD's own: with zeros for one of them it is SD's conv_in.
        sample = torch.cat([noised, torch.zeros_like(noised)], dim=1)
        embeds = embeds.expand(len(sample), -1, -1)
        predicted = self.unet(sample, times, encoder_hidden_states=embeds).sample.float()
        if self.velocity:
            return share.sqrt() * noised - (1 - share).sqrt() * predicted
        return (noised - (1 - share).sqrt() * predicted) / share.sqrt()


@contextmanager
def adapters_off(unet: nn.Module) -> Iterator[None]:
    """Disable the live LoRAs within the context, then restore their scales."""
    before: list[tuple[Mapping[str, float], dict[str, float]]] = []
    for layer in lora_layers(unet):
        before.append((dict(layer.scaling), layer.scaling))
        layer.scaling.update(dict.fromkeys(layer.scaling, 0.0))
    try:
        yield
    finally:
        for saved, scaling in before:
            scaling.update(saved)


def _check_halves(unet: TwoLoRAUNet) -> None:
    weight = unet.state_dict().get("conv_in.base_layer.weight", unet.conv_in.weight)
    first, second = weight.chunk(2, dim=1)
    if not torch.equal(first, second):
        raise OptionError(
            "the loss 'csd' needs Stable Diffusion's own conv_in, but this model's was trained "
            "further; start from `sd21:FOLDER`"
        )
