"""A model whose encoder, UNet and decoder a runtime has compiled; the rest runs in torch."""

from typing import Any

import torch
from torch import Tensor

from dloral.frame_generator import FrameGenerator
from dloral.memory import Limits
from dloral.runtimes.backends import BACKENDS, Run
from dloral.runtimes.graphs import DECODE, ENCODE, PREDICT, weights_of, with_weights

KEPT_SCALES = 2
"""Pairs of LoRA scales whose compiled networks are kept: a job's and the preview's beside it."""


def _of_the_base(name: str) -> Any:
    """A property delegated to the model in torch."""
    return property(lambda self: getattr(self.base, name))


class CompiledGenerator(FrameGenerator):
    """``base`` with three of its steps compiled from ``graphs`` by ``runtime``, one of
    :data:`BACKENDS`. Gives the same pictures; keeps no gradients.

    Other LoRA scales require recompiling the UNet (a tenth of a second), and a decoder that has
    LoRAs; the last ``KEPT_SCALES`` are kept. Raises what the runtime raises where it cannot
    compile.
    """

    execution_device = _of_the_base("execution_device")
    compute_dtype = _of_the_base("compute_dtype")
    latent_stride = _of_the_base("latent_stride")
    latent_channels = _of_the_base("latent_channels")
    max_window = _of_the_base("max_window")
    reads_prompts = _of_the_base("reads_prompts")
    default_color_fix = _of_the_base("default_color_fix")
    crispness = _of_the_base("crispness")
    smoothing = _of_the_base("smoothing")
    steadying = _of_the_base("steadying")
    grid_period = _of_the_base("grid_period")
    scale_range = _of_the_base("scale_range")
    other_vaes = _of_the_base("other_vaes")
    steps_down = _of_the_base("steps_down")
    folder = _of_the_base("folder")

    def __init__(self, base: FrameGenerator, graphs: dict[str, bytes], runtime: str) -> None:
        self.base = base
        self.runtime = runtime
        self._graphs = graphs
        self._encode = self._compiled(ENCODE)
        self._at: dict[str, dict[tuple[float, ...], Run]] = {PREDICT: {}, DECODE: {}}
        self._decoder_has_loras = any(
            n.startswith("vae.") and ".lora_" in n for n in weights_of(base)
        )
        self.set_scales()
        self._at_scales(DECODE)  # a decoder that cannot be compiled shows at once

    def _compiled(self, step: str) -> Run:
        whole = with_weights(step, self._graphs[step], weights_of(self.base))
        return BACKENDS[self.runtime].compile(whole, self.compute_dtype, torch.get_num_threads())

    def _at_scales(self, step: str) -> Run:
        """The step compiled for the current scales."""
        kept = self._at[step]
        scales = self._scales if step == PREDICT or self._decoder_has_loras else ()
        run = kept.pop(scales, None) or self._compiled(step)
        kept[scales] = run  # the most recently used is evicted last
        while len(kept) > KEPT_SCALES:
            del kept[next(iter(kept))]
        return run

    def set_scales(self, consistency: float = 1.0, detail: float = 1.0) -> None:
        """As the model in torch; parts with LoRAs are compiled when next used."""
        self.base.set_scales(consistency, detail)
        self._scales = (consistency, detail)

    def encode(self, lq_frames: Tensor, vae_tile: int | None = None) -> Tensor:
        """(B,3,H,W) -> (B,C,h,w); in torch if tiles are requested."""
        if vae_tile:
            return self.base.encode(lq_frames, vae_tile)
        return _run(self._encode, lq_frames).to(self.compute_dtype)

    def predict(
        self, aligned_latents: Tensor, retrieved_latents: Tensor, prompt_embeds: Tensor | None
    ) -> Tensor:
        """One step of the UNet compiled for the current scales -> eps (B,C,h,w)."""
        run = self._at_scales(PREDICT)
        return _run(run, aligned_latents, retrieved_latents).to(self.compute_dtype)

    def decode(
        self, restored_latents: Tensor, lq_frames: Tensor, vae_tile: int | None = None
    ) -> Tensor:
        """(B,C,h,w) and (B,3,H,W) -> frames (B,3,H,W), unclamped; in torch for tiles."""
        if vae_tile:
            return self.base.decode(restored_latents, lq_frames, vae_tile)
        return _run(self._at_scales(DECODE), restored_latents, lq_frames)

    def estimate_flow(self, small_frames: Tensor, previous_small_frames: Tensor) -> Tensor:
        """In torch."""
        return self.base.estimate_flow(small_frames, previous_small_frames)

    def retrieve(
        self,
        lq_latents: Tensor,
        small_frames: Tensor,
        previous_latents: Tensor,
        previous_small_frames: Tensor,
        flow: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Flow, warping and retrieval, in torch."""
        seen = (lq_latents, small_frames, previous_latents, previous_small_frames)
        return self.base.retrieve(*seen, flow)

    def encode_prompt(self, prompt: str) -> Tensor | None:
        """As the model in torch."""
        return self.base.encode_prompt(prompt)

    def needed_memory(self, limits: Limits, height: int, width: int) -> int:
        """As the model in torch."""
        return self.base.needed_memory(limits, height, width)

    def adopt(self, limits: Limits) -> None:
        """As the model in torch."""
        self.base.adopt(limits)


def _run(run: Run, *tensors: Tensor) -> Tensor:
    return torch.from_numpy(run(*(t.detach().float().contiguous().numpy() for t in tensors)))
