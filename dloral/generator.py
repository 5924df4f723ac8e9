"""The generator as a seam: what a model is asked to do, and what it declares about itself.

:class:`Generator` is the protocol: four steps on a batch of frames, and what a caller must know
about the model (latents, memory, prompts, colour fix). On top of it, :mod:`dloral.frame_generator`
builds clips of any length, windows, tiles and lower limits, so an implementation writes the steps
alone. :mod:`dloral.pipeline` implements them in torch, :mod:`dloral.runtimes` otherwise.

Legend: B frames of a batch, K earlier frames in the window, H x W frame size, h x w = H/s x W/s
latent size for a latent stride of s pixels, C latent channels. Frames are RGB in [0, 1].
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from dloral.memory import Limits, NeedsMemory

FINISH = ("crispness", "smoothing", "steadying", "grid_period")
"""What a model declares about how its frames are finished, after its decoder."""


class Generator(NeedsMemory, Protocol):
    """What a model declares about itself, and its steps; all from its own configuration."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """The precision that its largest part computes in."""

    @property
    def latent_channels(self) -> int: ...

    @property
    def max_window(self) -> int:
        """The maximum number of earlier frames it can use."""

    @property
    def reads_prompts(self) -> bool: ...

    @property
    def default_color_fix(self) -> str:
        """What ``color_fix="auto"`` stands for."""

    @property
    def crispness(self) -> float:
        """How much edges are sharpened where frames are made crisp at the end with detail at 1
        (:func:`dloral.frames.crisp.crisp`); 0 for frames that are not made crisp."""

    @property
    def smoothing(self) -> float:
        """How far flat areas are smoothed where frames are made crisp, 0 to 1."""

    @property
    def steadying(self) -> float:
        """How far a frame is blended with its predecessor at the end with consistency at 1
        (:func:`dloral.frames.steady.steady`), 0 to a half; 0 for not at all."""

    @property
    def grid_period(self) -> int:
        """Pixels after which a faint pattern of the decoder's repeats, which is taken out
        (:func:`dloral.frames.grid.without_grid`); 0 for none."""

    @property
    def scale_range(self) -> tuple[float, float] | None:
        """The range of enlargements it is meant for; None for any."""

    @property
    def other_vaes(self) -> Collection[str]:
        """Which of :data:`dloral.options.VAES` may stand in for its own."""

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from; None if it was built in memory."""

    def adopt(self, limits: Limits) -> None:
        """Apply lower limits to the parts."""

    def encode_prompt(self, prompt: str) -> Tensor | None:
        """Embeddings (1, tokens, D); None for a model that reads no prompts."""

    def set_scales(self, consistency: float = 1.0, detail: float = 1.0) -> None:
        """Set the scales of both LoRAs, each in [0, MAX_LORA_SCALE]."""

    def encode(self, lq_frames: Tensor, vae_tile: int | None = None) -> Tensor:
        """Step 1: frames (B,3,H,W), sides multiples of the stride -> latents (B,C,h,w)."""

    def estimate_flow(self, small_frames: Tensor, previous_small_frames: Tensor) -> Tensor:
        """Flow (B,2,h,w), in latent cells, from frames (B,3,h,w) to earlier ones (B,3,h,w)."""

    def retrieve(
        self,
        lq_latents: Tensor,
        small_frames: Tensor,
        previous_latents: Tensor,
        previous_small_frames: Tensor,
        flow: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Step 2: (B,C,h,w), (B,3,h,w) and the same of K earlier frames, nearest first
        (K,B,.,h,w) -> (retrieved, aligned), each (B,C,h,w). ``flow``: :meth:`estimate_flow`'s for
        these frames (K,B,2,h,w), where it is known."""

    def predict(
        self, aligned_latents: Tensor, retrieved_latents: Tensor, prompt_embeds: Tensor | None
    ) -> Tensor:
        """Step 3: what is wrong with the retrieved latents, eps (B,C,h,w). This step and the
        next are all that the LoRA scales change."""

    def decode(
        self, restored_latents: Tensor, lq_frames: Tensor, vae_tile: int | None = None
    ) -> Tensor:
        """Step 4: latents (B,C,h,w) and padded input (B,3,H,W) -> frames (B,3,H,W), before the
        colour fix; they may go beyond [0, 1]."""


@dataclass(frozen=True)
class Prepared:
    """B consecutive frames, processed up to where the LoRA scales come in; see
    :meth:`dloral.frame_generator.FrameGenerator.prepare`.

    ``frames``: the input (B,3,H,W). ``parts``: (retrieved, aligned) latents of each tile, in the
    order of :func:`dloral.frames.tiles.tiles_of`; one pair without tiles. ``cells``: h and w.
    ``flow`` (B,2,h,w): to each frame's predecessor, where the model blends the two at the end.
    ``lead``: how many of the frames are only predecessors, and left out of the result.
    """

    frames: Tensor
    parts: tuple[tuple[Tensor, Tensor], ...]
    cells: tuple[int, int]
    prompt_embeds: Tensor | None
    limits: Limits
    flow: Tensor | None = None
    lead: int = 0

    def to(self, device: torch.device | str) -> "Prepared":
        """The same on ``device``; a CPU is a good place to keep many."""
        embeds, flow = self.prompt_embeds, self.flow
        return replace(
            self,
            frames=self.frames.to(device),
            parts=tuple((kept.to(device), near.to(device)) for kept, near in self.parts),
            prompt_embeds=embeds.to(device) if embeds is not None else None,
            flow=flow.to(device) if flow is not None else None,
        )
