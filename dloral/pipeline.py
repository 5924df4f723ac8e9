"""The generator in torch: low-quality frames in, restored frames out. No files, no codecs.

Four steps, each public, each on a batch of frames, each keeping gradients::

    lq_latents = pipe.encode(lq_frames)               # every frame once
    retrieved, aligned = pipe.retrieve(lq_latents, .) # flow, warp, cross-frame retrieval
    restored = pipe.refine(aligned, retrieved, embeds) # one UNet step, both LoRAs at their scales
    frames = pipe.decode(restored, lq_frames)         # VAE, which may have LoRAs; no colour fix yet

``pipe(frames)`` is those four under ``no_grad`` with windows, tiles, colour fix and crispness,
``pipe.stream`` the same for clips of any length, ``pipe.prepare`` and ``pipe.finish`` the same in
two halves; all from :class:`dloral.frame_generator.FrameGenerator`.

Legend: B frames of a batch, K earlier frames in the window, H x W frame size, h x w = H/s x W/s
latent size for a latent stride of s pixels, C latent channels. Frames are RGB in [0, 1]
throughout; only the networks see [-1, 1].
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from dloral.devices import can_offload
from dloral.frame_generator import FrameGenerator
from dloral.frames.crisp import FULL_CRISPNESS_SCALE
from dloral.hub_pipeline import HubPipeline
from dloral.looks import check_lora_scales
from dloral.memory import Limits
from dloral.models import vae_kinds
from dloral.models.adapters import ADAPTERS, CONSISTENCY, DETAIL
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet, warp_unfolded
from dloral.models.unet import TIMESTEP, TwoLoRAUNet
from dloral.models.vae import CompactVAE
from dloral.models.vae_kinds import kind_of
from dloral.options import AUTO, WINDOWS
from dloral.stages import FLOW, RETRIEVE, stage

StepCallback = Callable[[Any, int, int, dict[str, Any]], dict[str, Any] | None]

UNET_FEATURES = 60
"""How many times the UNet's first width is held at a time, for each latent cell."""


@dataclass
class DLoRALOutput(BaseOutput):
    """``frames``: float tensor (T,3,H,W) in [0, 1], the same as an array (T,H,W,3), a list of PIL
    images, or latents (T,C,h,w), by ``output_type``."""

    frames: Any


class DLoRALPipeline(HubPipeline, DiffusionPipeline, FrameGenerator):
    """One-step video super-resolution with C-LoRA (consistency) and D-LoRA (detail).

    What differs between models is in the configuration, ``model_index.json`` (an absent key takes
    its default). ``decoder_adds_input``: the VAE's decoder outputs the difference from the
    low-quality frame (the compact model) rather than the frame itself (Stable Diffusion's).
    ``color_fix``: what the model works best with (the full one: AdaIN, as released).
    ``crispness``: how much edges are sharpened where frames are made crisp at the end with detail
    at 1 (the full one: not at all), and ``smoothing`` how far flat areas are smoothed there, 0 to
    1. ``steadying``: how far frames are blended with their predecessors after that with consistency
    at 1, 0 to a half (the full one: not at all). ``grid_period``: of a faint pattern
    that the decoder draws, to be taken out, in pixels, a power of two (the full one: 0, for none).
    ``scale_range``: the enlargements it is meant for, None for any. ``max_window``: the maximum
    number of earlier frames it can use. Latent stride and channels are the VAE's; ``tiny_decoder``,
    if given, decodes.
    """

    _optional_components = [  # noqa: RUF012 (diffusers)
        "tokenizer",
        "text_encoder",
        "scheduler",
        "tiny_decoder",
    ]
    model_cpu_offload_seq = "text_encoder->vae->flow->retrieval->unet->tiny_decoder"

    def __init__(
        self,
        vae: AutoencoderKL | CompactVAE | AutoencoderTiny,
        unet: TwoLoRAUNet,
        flow: SPyNet,
        retrieval: CrossFrameRetrieval,
        tokenizer: Any = None,
        text_encoder: Any = None,
        scheduler: Any = None,
        tiny_decoder: AutoencoderTiny | None = None,
        decoder_adds_input: bool = False,
        color_fix: str = "adain",
        crispness: float = 0.0,
        smoothing: float = 1.0,
        steadying: float = 0.0,
        grid_period: int = 0,
        scale_range: tuple[float, float] | None = None,
        max_window: int = max(WINDOWS),
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            unet=unet,
            flow=flow,
            retrieval=retrieval,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            scheduler=scheduler,
            tiny_decoder=tiny_decoder,
        )
        self.register_to_config(
            decoder_adds_input=decoder_adds_input,
            color_fix=color_fix,
            crispness=crispness,
            smoothing=smoothing,
            steadying=steadying,
            grid_period=grid_period,
            scale_range=scale_range,
            max_window=max_window,
        )
        # No bar unless asked for: every face of the software shows its own.
        self.set_progress_bar_config(disable=True)
        self._adapter_scales = dict.fromkeys(ADAPTERS, 1.0)
        self._vae_tile: int | None = None
        self._callback: StepCallback | None = None
        self._interrupt = False

    # The four steps --------------------------------------------------------------------------

    def encode(self, lq_frames: Tensor, vae_tile: int | None = None) -> Tensor:
        """Frames (B,3,H,W) in [0, 1], sides multiples of the stride -> latents (B,C,h,w).

        The mean of the VAE's distribution times its scaling factor (notes, step 1). ``vae_tile``:
        latent cells of a tile where memory is short, for a VAE that has tiles.
        """
        # Contiguous, since image arrays arrive channels-last (see channels_last).
        pictures = (2 * lq_frames - 1).to(self.vae.dtype).contiguous()
        return vae_kinds.encode(self.vae, pictures, vae_tile or self._vae_tile)

    def retrieve(
        self,
        lq_latents: Tensor,
        small_frames: Tensor,
        previous_latents: Tensor,
        previous_small_frames: Tensor,
        flow: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What K earlier frames know of the current ones: (retrieved, aligned), (B,C,h,w) each.

        ``lq_latents`` (B,C,h,w) and ``previous_latents`` (K,B,C,h,w), nearest first, come from
        :meth:`encode`; ``small_frames`` (B,3,h,w) and ``previous_small_frames`` (K,B,3,h,w) are
        the same frames by :func:`shrink_for_flow`. Every predecessor is warped to the current
        frame; retrieval looks at all of them, ``aligned`` is the nearest (notes, steps 2 to 4).
        ``flow`` (K,B,2,h,w) is estimated (:meth:`estimate_flow`) where it is not given.
        With K = 0 a frame stands alone: both are the current latents.
        """
        window, batch = previous_latents.shape[:2]
        if not window:
            return lq_latents, lq_latents
        with stage(FLOW):
            if flow is None:
                flow = self.estimate_flows(small_frames, previous_small_frames)
            aligned = self.warp(previous_latents.flatten(0, 1), flow.flatten(0, 1))
        aligned_window = aligned.unflatten(0, (window, batch))
        with stage(RETRIEVE):
            found = self.retrieval.retrieve(lq_latents, aligned_window)
            return lq_latents + found, aligned_window[0]

    def warp(self, previous_latents: Tensor, flow_current_to_previous: Tensor) -> Tensor:
        """Latents (B,C,h,w) warped to the current frame by the flow (B,2,h,w), in cells."""
        fold = kind_of(self.vae).fold(self.vae)
        return warp_unfolded(previous_latents, flow_current_to_previous, fold)

    def estimate_flow(self, small_frames: Tensor, previous_small_frames: Tensor) -> Tensor:
        """Flow (B,2,h,w), in latent cells, from frames (B,3,h,w) to earlier ones (B,3,h,w)."""
        return self.flow(2 * small_frames - 1, 2 * previous_small_frames - 1)

    def predict(
        self, aligned_latents: Tensor, retrieved_latents: Tensor, prompt_embeds: Tensor | None
    ) -> Tensor:
        """One UNet step with both LoRAs at their scales -> eps (B,C,h,w) (notes, step 5)."""
        return self.unet.predict(aligned_latents, retrieved_latents, prompt_embeds)

    def decode(
        self, restored_latents: Tensor, lq_frames: Tensor, vae_tile: int | None = None
    ) -> Tensor:
        """Latents (B,C,h,w) and the padded input (B,3,H,W) -> frames (B,3,H,W), before the colour
        fix; beyond [0, 1] where the decoder adds to the input."""
        decoded = vae_kinds.decode(
            self.tiny_decoder or self.vae, restored_latents, lq_frames, vae_tile or self._vae_tile
        )
        if self.config.decoder_adds_input:
            return torch.add(lq_frames, decoded, alpha=0.5)
        return (decoded.clamp(-1, 1) + 1) / 2

    # What callers must know ------------------------------------------------------------------

    @property
    def execution_device(self) -> torch.device:
        return self._execution_device

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def latent_stride(self) -> int:
        return kind_of(self.vae).stride(self.vae)

    @property
    def latent_channels(self) -> int:
        return self.vae.config.latent_channels

    @property
    def max_window(self) -> int:
        return self.config.max_window

    @property
    def default_color_fix(self) -> str:
        return self.config.color_fix

    @property
    def crispness(self) -> float:
        return self.config.crispness

    @property
    def smoothing(self) -> float:
        return self.config.smoothing

    @property
    def steadying(self) -> float:
        return self.config.steadying

    @property
    def grid_period(self) -> int:
        return self.config.grid_period

    @property
    def scale_range(self) -> tuple[float, float] | None:
        return self.config.scale_range and tuple(self.config.scale_range)

    @property
    def other_vaes(self) -> Collection[str]:
        of_the_same_latents = kind_of(self.vae).latents == vae_kinds.STABLE_DIFFUSION
        return ("tiny", "tiny-decoder") if of_the_same_latents else ()

    @property
    def reads_prompts(self) -> bool:
        return self.tokenizer is not None

    @property
    def folder(self) -> Path | None:
        """Where the model was loaded from; None if it was built in memory."""
        name = self.config.get("_name_or_path")
        return Path(name) if name and Path(name).is_dir() else None

    def encode_prompt(self, prompt: str) -> Tensor | None:
        """Embeddings (1, tokens, D) of the text encoder's last layer; None if there is none."""
        if not self.reads_prompts:
            return None
        if self.text_encoder is None:
            self._load_text_encoder()
        tokens = self.tokenizer(
            prompt,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self.text_encoder.device))[0]

    def set_scales(self, consistency: float = 1.0, detail: float = 1.0, merge: bool = True) -> None:
        """Set the scales of C-LoRA and D-LoRA in the networks, each in [0, MAX_LORA_SCALE]; raises
        :class:`OptionError` beyond. ``merge``: as in :meth:`TwoLoRAUNet.set_scales`."""
        check_lora_scales(consistency, detail)
        self.unet.set_scales(consistency=consistency, detail=detail, merge=merge)
        if isinstance(self.vae, CompactVAE):
            self.vae.set_scales(consistency=consistency, detail=detail)

    # What people call ------------------------------------------------------------------------

    def __call__(
        self,
        frames: Any,
        prompt: str = "",
        consistency: float | None = None,
        detail: float | None = None,
        window: int = 1,
        tile: int | None = None,
        tile_overlap: int = 32,
        color_fix: str = AUTO,
        output_type: str = "pt",
        batch_size: int = 1,
        callback_on_step_end: StepCallback | None = None,
        *,
        enlarged: float = FULL_CRISPNESS_SCALE,
    ) -> Any:
        """Restore a clip that has been brought to its output size; see
        :meth:`FrameGenerator.__call__`.

        ``consistency``, ``detail``: as :meth:`set_adapters` left them if not given.
        ``callback_on_step_end``: called with (pipeline, index of the frame, timestep,
        ``{"frame": restored}``) after each frame; a frame returned in such a dictionary replaces
        it. A callback that sets ``pipe._interrupt = True`` ends the clip there.
        """
        kept = self._adapter_scales
        self._callback, self._interrupt = callback_on_step_end, False
        try:
            return super().__call__(
                frames,
                prompt,
                kept[CONSISTENCY] if consistency is None else consistency,
                kept[DETAIL] if detail is None else detail,
                window,
                tile,
                tile_overlap,
                color_fix,
                output_type,
                batch_size,
                enlarged=enlarged,
            )
        finally:
            self._callback = None

    # Memory ----------------------------------------------------------------------------------

    @property
    def steps_down(self) -> Collection[str]:
        can = {"tile"}
        if kind_of(self.vae).has_tiles:
            can.add("vae_tile")
        if self.reads_prompts and self.folder is not None:
            can.add("text")
        if can_offload(self.execution_device):
            can.add("offload")
        return can

    def needed_memory(self, limits: Limits, height: int, width: int) -> int:
        """Bytes, roughly, that frames of ``height`` x ``width`` take beyond the weights."""
        # With offloading, everything but the UNet leaves, and its copies are kept elsewhere.
        adapted = 0 if limits.offload else self.unet.bytes_to_merge()
        vae = kind_of(self.vae).needed_memory(
            self.vae, height, width, limits.vae_tile, self.tiny_decoder is not None
        )
        cells = height * width // self.latent_stride**2
        if limits.tile:
            cells = min(cells, limits.tile**2)
        unet = UNET_FEATURES * cells * self.unet.config.block_out_channels[0]
        text = 0 if limits.keep_text else _bytes_of(self.text_encoder)
        return adapted + limits.batch_size * (vae + unet * self.unet.dtype.itemsize) - text

    def adopt(self, limits: Limits) -> None:
        """Apply lower limits to the parts."""
        if not limits.keep_text:
            self.unload_text_encoder()
        if limits.offload and not self._is_offloaded:
            self.unet.keep_pristine_on("cpu")
            self.enable_model_cpu_offload(device=self.execution_device)

    @property
    def _is_offloaded(self) -> bool:
        return bool(getattr(self, "_all_hooks", None))

    def _watched(self, results: Iterator[Tensor], total: int) -> Iterable[Tensor]:
        with self.progress_bar(total=total) as bar:
            for index, result in enumerate(results):
                if self._callback is not None:
                    changed = self._callback(self, index, TIMESTEP, {"frame": result}) or {}
                    result = changed.get("frame", result)
                yield result
                bar.update()
                if self._interrupt:
                    return

    def _output(self, frames: Any) -> DLoRALOutput:
        return DLoRALOutput(frames=frames)

    def channels_last(self) -> Self:
        """Lay out the convolutions' weights for the fastest CPU and GPU kernels.

        Except a VAE with group normalisation on a CPU: torch's channels-last kernel computes the
        variance as a difference of large sums. At 512 x 512 that gives a thousand times the usual
        rounding error, amplified by the flow net; in the UNet's small maps it is harmless.
        """
        for module in (self.vae, self.unet, self.flow):
            if module is self.vae and module.device.type == "cpu" and _has_group_norm(module):
                continue
            module.to(memory_format=torch.channels_last)
        return self


def _has_group_norm(module: torch.nn.Module) -> bool:
    return any(isinstance(part, torch.nn.GroupNorm) for part in module.modules())


def _bytes_of(module: torch.nn.Module | None) -> int:
    return sum(p.numel() * p.itemsize for p in module.parameters()) if module is not None else 0
