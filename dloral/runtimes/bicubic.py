"""Bicubic enlargement as a model: what every result is compared with, where a model is expected.

Its latents are the frames themselves (stride 1, 3 channels) and its correction is zero, so it
returns its input. Imports no library that runs models.
"""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from dloral.errors import OptionError, Setting
from dloral.frame_generator import FrameGenerator
from dloral.looks import check_lora_scales
from dloral.memory import Limits
from dloral.options import AUTO

BYTES_PER_PIXEL = 3 * 4 * 3
"""Of a frame: its input, the result and the difference between, in float32."""


class BicubicGenerator(FrameGenerator):
    """Frames come enlarged (:func:`dloral.frames.resize.resize_bicubic`) and stay as they are."""

    latent_stride = 1
    latent_channels = 3
    max_window = 0
    reads_prompts = False
    default_color_fix = "none"
    crispness = 0.0
    smoothing = 1.0
    steadying = 0.0
    grid_period = 0
    scale_range = None
    other_vaes: Collection[str] = ()
    steps_down: Collection[str] = ()
    compute_dtype = torch.float32

    def __init__(self, folder: Path | None = None, device: torch.device | None = None) -> None:
        self._folder = folder
        self._device = device or torch.device("cpu")

    @property
    def folder(self) -> Path | None:
        return self._folder

    @property
    def execution_device(self) -> torch.device:
        return self._device

    def needed_memory(self, limits: Limits, height: int, width: int) -> int:
        """Bytes that a batch of frames takes."""
        return limits.batch_size * height * width * BYTES_PER_PIXEL

    def adopt(self, limits: Limits) -> None:
        """Does nothing: there are no parts."""

    def encode_prompt(self, prompt: str) -> None:
        """None: it reads no prompts."""

    def set_scales(self, consistency: float = 1.0, detail: float = 1.0) -> None:
        """Has no LoRAs; raises :class:`OptionError` as a model with them does."""
        check_lora_scales(consistency, detail)

    def encode(self, lq_frames: Tensor, vae_tile: int | None = None) -> Tensor:
        """(B,3,H,W) -> the same."""
        return lq_frames

    def estimate_flow(self, small_frames: Tensor, previous_small_frames: Tensor) -> Tensor:
        """No motion (B,2,h,w): no frame is compared with another."""
        return small_frames.new_zeros(len(small_frames), 2, *small_frames.shape[-2:])

    def retrieve(
        self,
        lq_latents: Tensor,
        small_frames: Tensor,
        previous_latents: Tensor,
        previous_small_frames: Tensor,
        flow: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Each frame stands alone."""
        return lq_latents, lq_latents

    def predict(
        self, aligned_latents: Tensor, retrieved_latents: Tensor, prompt_embeds: Tensor | None
    ) -> Tensor:
        """Nothing to correct: 0 everywhere."""
        return retrieved_latents.new_zeros(()).expand_as(retrieved_latents)

    def decode(
        self, restored_latents: Tensor, lq_frames: Tensor, vae_tile: int | None = None
    ) -> Tensor:
        """(B,3,H,W) -> the same."""
        return restored_latents


def open_folder(
    folder: Path, place: torch.device, dtype: torch.dtype, vae: str, *, widen: bool
) -> BicubicGenerator:
    """As :mod:`dloral.weights.loading` calls it; raises :class:`OptionError` for another VAE."""
    if vae != AUTO:
        raise OptionError(
            "{option} is {value!r}, but this model has no VAE",
            remedy="use {instead}",
            option=Setting("vae"),
            value=vae,
            instead=Setting("vae", AUTO),
        )
    return BicubicGenerator(folder, place)
