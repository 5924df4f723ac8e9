"""The generator: low-quality frames in, restored frames out. No files, no codecs.

Four steps, each public, each on a batch of frames, each keeping gradients::

    lq_latents = pipe.encode(lq_frames)               # every frame once
    retrieved, aligned = pipe.retrieve(lq_latents, .) # flow, warp, cross-frame retrieval
    restored = pipe.refine(aligned, retrieved, embeds) # one UNet step, both LoRAs at their scales
    frames = pipe.decode(restored, lq_frames)         # VAE; then colour fix

``pipe(frames)`` is those four under ``no_grad`` with windows, tiles and colour fix, and
:meth:`DLoRALPipeline.stream` the same for clips of any length.

Legend: T frames of a clip, B frames of a batch, K earlier frames in the window, H x W frame size,
h x w = H/8 x W/8 latent size, C latent channels. Frames are RGB in [0, 1] throughout; only the
networks see [-1, 1].
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel

from dloral.errors import OptionError
from dloral.frames.clips import as_frames, as_output
from dloral.frames.colour import COLOUR_FIXES, fix_colour
from dloral.frames.resize import pad_to_latent_grid, shrink_for_flow
from dloral.frames.tiles import blend_tiles
from dloral.frames.window import Window
from dloral.memory import Limits, fit, is_out_of_memory, release_memory, step_down
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet, warp
from dloral.models.tiled_vae import decode_in_tiles, encode_in_tiles
from dloral.models.unet import TwoLoRAUNet
from dloral.models.vae import CompactVAE
from dloral.options import AUTO, WINDOWS

OUTPUT_TYPES = ("pt", "np", "pil", "latent")


@dataclass
class DLoRALOutput(BaseOutput):
    """``frames``: float tensor (T,3,H,W) in [0, 1], the same as an array (T,H,W,3), a list of PIL
    images, or latents (T,C,h,w), by ``output_type``."""

    frames: Any


class DLoRALPipeline(DiffusionPipeline):
    """One-step video super-resolution with C-LoRA (consistency) and D-LoRA (detail).

    ``decoder_adds_input``: the VAE's decoder gives the difference to the low-quality frame (the
    compact model) rather than the frame itself (Stable Diffusion's). ``color_fix``: what the model
    is best used with (the full one: AdaIN, as released). ``tiny_decoder``: decodes in the VAE's
    place where it is given.
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
        self.register_to_config(decoder_adds_input=decoder_adds_input, color_fix=color_fix)
        # No bar unless asked for: every face of the software shows its own.
        self.set_progress_bar_config(disable=True)

    # The four steps --------------------------------------------------------------------------

    def encode(self, lq_frames: Tensor, vae_tile: int | None = None) -> Tensor:
        """Frames (B,3,H,W) in [0, 1], H and W multiples of 8 -> latents (B,C,h,w).

        The mean of the VAE's distribution times its scaling factor (notes, step 1). ``vae_tile``:
        latent cells of a tile where memory is short (Stable Diffusion's VAE alone needs it).
        """
        pictures = self._to_network(lq_frames)
        if vae_tile and isinstance(self.vae, AutoencoderKL):
            return encode_in_tiles(self.vae, pictures, vae_tile) * self.vae.config.scaling_factor
        encoded = self.vae.encode(pictures)
        latents = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded[0]
        return latents * self.vae.config.scaling_factor

    def retrieve(
        self,
        lq_latents: Tensor,
        small_frames: Tensor,
        previous_latents: Tensor,
        previous_small_frames: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What K earlier frames know of the current ones: (retrieved, aligned), (B,C,h,w) each.

        ``lq_latents`` (B,C,h,w) and ``previous_latents`` (K,B,C,h,w), nearest first, come from
        :meth:`encode`; ``small_frames`` (B,3,h,w) and ``previous_small_frames`` (K,B,3,h,w) are
        the same frames by :func:`shrink_for_flow`. Every predecessor is warped to the current
        frame; retrieval is averaged over them, ``aligned`` is the nearest (notes, steps 2 to 4).
        With K = 0 a frame stands alone: both are the current latents.
        """
        window, batch = previous_latents.shape[:2]
        if not window:
            return lq_latents, lq_latents
        flow_current_to_previous = self.estimate_flow(
            small_frames.expand(window, -1, -1, -1, -1).flatten(0, 1),
            previous_small_frames.flatten(0, 1),
        )
        aligned = warp(previous_latents.flatten(0, 1), flow_current_to_previous)
        aligned_window = aligned.unflatten(0, (window, batch))
        found = [self.retrieval.retrieve(lq_latents, aligned) for aligned in aligned_window]
        return lq_latents + torch.stack(found).mean(dim=0), aligned_window[0]

    def estimate_flow(self, small_frames: Tensor, previous_small_frames: Tensor) -> Tensor:
        """Flow (B,2,h,w), in latent cells, from frames (B,3,h,w) to earlier ones (B,3,h,w)."""
        return self.flow(2 * small_frames - 1, 2 * previous_small_frames - 1)

    def refine(
        self, aligned_latents: Tensor, retrieved_latents: Tensor, prompt_embeds: Tensor | None
    ) -> Tensor:
        """One UNet step with both LoRAs at their scales -> restored latents (B,C,h,w).

        ``restored = retrieved - eps`` (notes, steps 5 and 6).
        """
        return retrieved_latents - self.unet.predict(
            aligned_latents, retrieved_latents, prompt_embeds
        )

    def restore(
        self,
        lq_latents: Tensor,
        small_frames: Tensor,
        previous_latents: Tensor,
        previous_small_frames: Tensor,
        prompt_embeds: Tensor | None = None,
        tile: int | None = None,
        tile_overlap: int = 32,
    ) -> Tensor:
        """:meth:`retrieve` and :meth:`refine`, tile by tile where ``tile`` is given.

        As in the reference, a tile estimates its own flow, and ``retrieved`` and ``eps`` are both
        blended before they are subtracted.
        """

        def one_tile(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
            retrieved, aligned = self.retrieve(
                lq_latents[..., rows, columns],
                small_frames[..., rows, columns],
                previous_latents[..., rows, columns],
                previous_small_frames[..., rows, columns],
            )
            return retrieved, self.unet.predict(aligned, retrieved, prompt_embeds)

        height, width = lq_latents.shape[-2:]
        retrieved, eps = blend_tiles(one_tile, height, width, tile, tile_overlap)
        return retrieved - eps

    def decode(
        self, restored_latents: Tensor, lq_frames: Tensor, vae_tile: int | None = None
    ) -> Tensor:
        """Latents (B,C,h,w) and the padded input (B,3,H,W) -> frames (B,3,H,W), unclamped."""
        vae = self.tiny_decoder or self.vae
        latents = restored_latents / vae.config.scaling_factor
        if vae_tile and isinstance(vae, AutoencoderKL):
            decoded = decode_in_tiles(vae, latents, vae_tile).float()
        else:
            decoded = vae.decode(latents).sample.float()
        if self.config.decoder_adds_input:
            return decoded / 2 + lq_frames
        return (decoded.clamp(-1, 1) + 1) / 2

    # Around the steps ------------------------------------------------------------------------

    @property
    def reads_prompts(self) -> bool:
        return self.tokenizer is not None

    @property
    def folder(self) -> Path | None:
        """Where the model was loaded from; None for one that was built in memory."""
        name = self.config.get("_name_or_path")
        return Path(name) if name and Path(name).is_dir() else None

    def encode_prompt(self, prompt: str) -> Tensor | None:
        """Embeddings (1, tokens, D) of the text encoder's last layer; None for a model without."""
        if not self.reads_prompts:
            return None
        if self.text_encoder is None:
            self._load_text_encoder()
        tokens = self.tokenizer(  # type: ignore[misc]
            prompt,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self.text_encoder.device))[0]

    def unload_text_encoder(self) -> None:
        """Give its memory back; :meth:`encode_prompt` loads it again. Only for a loaded model."""
        if self.folder is not None and self.text_encoder is not None:
            self.text_encoder: Any = None
            release_memory()

    def _load_text_encoder(self) -> None:
        assert self.folder is not None, "a text encoder is unloaded only where it can come back"
        on_cpu = self.device.type == "cpu"  # which may have no half precision
        text_encoder = CLIPTextModel.from_pretrained(
            self.folder,
            subfolder="text_encoder",
            dtype=torch.float32 if on_cpu else self.unet.dtype,
            local_files_only=True,
        )
        self.text_encoder = text_encoder.requires_grad_(False).eval().to(self._execution_device)

    def set_scales(self, consistency: float = 1.0, detail: float = 1.0) -> None:
        """How much of C-LoRA and D-LoRA is in the UNet's weights from now on; both at least 0."""
        for name, scale in (("consistency", consistency), ("detail", detail)):
            if not 0 <= scale < float("inf"):
                raise OptionError(f"{name} is {scale}; give a scale of 0 or more, 1 is the usual")
        self.unet.set_scales(consistency=consistency, detail=detail)

    @torch.no_grad()
    def __call__(
        self,
        frames: Tensor | np.ndarray | list[Image.Image],
        prompt: str = "",
        consistency: float = 1.0,
        detail: float = 1.0,
        window: int = 1,
        tile: int | None = None,
        tile_overlap: int = 32,
        color_fix: str = AUTO,
        output_type: str = "pt",
        batch_size: int = 1,
    ) -> DLoRALOutput:
        """Restore a clip that has been brought to its output size. T frames in, T frames out.

        ``frames``: float (T,3,H,W) in [0, 1], uint8 (T,3,H,W) or (T,H,W,3), or PIL images, of any
        size from 1 x 1 on. Frame 0 is its own predecessor. ``window`` is how many earlier frames
        CFR looks at (0, 1, 3 or 5; 0: each frame alone). ``tile`` and ``tile_overlap`` are in
        latent cells of 8 pixels (96 and 32 are the reference's); ``tile=None`` does not tile.
        ``color_fix``: adain, wavelet, none, or auto for the model's own.
        Raises :class:`OptionError` for a value outside its range.
        """
        if output_type not in OUTPUT_TYPES:
            raise OptionError(
                f"output_type is {output_type!r}; choose from {', '.join(OUTPUT_TYPES)}"
            )
        clip = as_frames(frames)
        results = self.stream(
            clip,
            prompt=prompt,
            consistency=consistency,
            detail=detail,
            window=window,
            tile=tile,
            tile_overlap=tile_overlap,
            color_fix=color_fix,
            batch_size=batch_size,
            latents_only=output_type == "latent",
        )
        restored = []
        with self.progress_bar(total=len(clip)) as bar:
            for frame in results:
                restored.append(frame)
                bar.update()
        return DLoRALOutput(frames=as_output(torch.stack(restored), output_type))

    @torch.no_grad()
    def stream(
        self,
        frames: Iterable[Tensor],
        prompt: str | Iterable[str] = "",
        consistency: float = 1.0,
        detail: float = 1.0,
        window: int = 1,
        tile: int | None = None,
        tile_overlap: int = 32,
        color_fix: str = AUTO,
        batch_size: int = 1,
        latents_only: bool = False,
        on_note: Callable[[str], None] | None = None,
    ) -> Iterator[Tensor]:
        """Restored frames (3,H,W) in [0, 1], one for each of ``frames`` (3,H,W), as they are ready.

        What is kept between frames is ``window`` latents and small frames, so memory does not
        grow with the clip. Arguments as in :meth:`__call__`; ``prompt`` may be one for each frame,
        read as frames are; ``latents_only`` yields restored latents (C,h,w).

        Where memory is short, frames are restored in smaller steps than asked (see
        :class:`dloral.memory.Limits`), from the start where that can be foreseen, and
        ``on_note`` is told. Raises :class:`ResourceError` where the smallest do not fit.
        """
        _check(
            window=window,
            tile=tile,
            tile_overlap=tile_overlap,
            color_fix=color_fix,
            batch_size=batch_size,
        )
        method = self.config.color_fix if color_fix == AUTO else color_fix
        limits = Limits(batch_size, tile, tile_overlap)
        prompts = repeat(prompt) if isinstance(prompt, str) else iter(prompt)
        before = Window(window)
        waiting: deque[tuple[Tensor, str]] = deque()  # read, not yet restored
        source, known = iter(frames), {}  # type: ignore[var-annotated]
        begun = False
        while True:
            room = max(0, limits.batch_size - len(waiting))
            waiting.extend(zip(islice(source, room), prompts, strict=False))
            if not waiting:
                return
            batch = [waiting[index] for index in range(min(limits.batch_size, len(waiting)))]
            given = as_frames([frame for frame, _ in batch])
            if not begun:
                begun = True
                if fitting := fit(self, limits, *given.shape[-2:]):
                    limits = self._adopt(*fitting, on_note)
                continue
            # Every time, for another stream may have set others; costs nothing where none has.
            try:
                self.set_scales(consistency, detail)
                embeds = self._embeds([text for _, text in batch], known, limits)
                after = before.copy()
                results = self._restore_batch(
                    given.to(self._execution_device), after, embeds, limits, method, latents_only
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                results = None
            if results is None:  # outside of the handler, which holds on to what it caught
                release_memory()
                limits = self._adopt(*step_down(self, limits, *given.shape[-2:]), on_note)
                continue
            before = after
            for _ in batch:
                waiting.popleft()
            yield from results

    def _restore_batch(
        self,
        given: Tensor,
        before: Window,
        prompt_embeds: Tensor | None,
        limits: Limits,
        method: str,
        latents_only: bool,
    ) -> Tensor:
        """Frames (B,3,H,W) -> restored ones, or latents; ``before`` is brought up to date."""
        lq_frames = pad_to_latent_grid(given)
        lq_latents = self.encode(lq_frames, limits.vae_tile)
        small_frames = shrink_for_flow(lq_frames)
        previous = before.recall(lq_latents, small_frames)
        restored = self.restore(
            lq_latents, small_frames, *previous, prompt_embeds, limits.tile, limits.tile_overlap
        )
        if latents_only:
            return restored.float().cpu()
        height, width = given.shape[-2:]
        decoded = self.decode(restored, lq_frames, limits.vae_tile)[..., :height, :width]
        return fix_colour(decoded, given, method).cpu()

    def _embeds(
        self, prompts: list[str], known: dict[str, Tensor | None], limits: Limits
    ) -> Tensor | None:
        """Embeddings (B,tokens,D) of a batch's prompts, or (1,tokens,D) where they are one."""
        for prompt in prompts:
            if prompt not in known:
                known[prompt] = self.encode_prompt(prompt)
        if not limits.keep_text:
            self.unload_text_encoder()
        distinct = [known[prompt] for prompt in dict.fromkeys(prompts)]
        if len(distinct) == 1 or distinct[0] is None:
            return distinct[0]
        return torch.cat([known[prompt] for prompt in prompts])  # type: ignore[misc]

    def _adopt(self, limits: Limits, note: str, on_note: Callable[[str], None] | None) -> Limits:
        """Do to the parts what lower limits ask for, and say so."""
        if not limits.keep_text:
            self.unload_text_encoder()
        if limits.offload:
            self.unet.keep_pristine_on("cpu")
            self.enable_model_cpu_offload(device=self._execution_device)
        if on_note is not None:
            on_note(note)
        return limits

    def _to_network(self, frames: Tensor) -> Tensor:
        # Contiguous, for arrays of pictures are channels-last when they come (see channels_last).
        return (2 * frames - 1).to(self.vae.dtype).contiguous()

    def channels_last(self) -> Self:
        """Lay out the convolutions' weights for the fastest CPU and GPU kernels.

        Not a VAE with group normalisation on a CPU: torch's channels-last kernel there takes the
        variance as a difference of large sums. At 512 x 512 that is a thousand times the usual
        rounding error, and the flow net makes more of it; in the UNet's small maps it is harmless.
        """
        for module in (self.vae, self.unet, self.flow):
            if module is self.vae and module.device.type == "cpu" and _has_group_norm(module):
                continue
            module.to(memory_format=torch.channels_last)
        return self


def _has_group_norm(module: torch.nn.Module) -> bool:
    return any(isinstance(part, torch.nn.GroupNorm) for part in module.modules())


def _check(
    *, window: int, tile: int | None, tile_overlap: int, color_fix: str, batch_size: int
) -> None:
    if window not in WINDOWS:
        raise OptionError(f"window is {window}; choose from {', '.join(map(str, WINDOWS))}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch_size is {batch_size!r}; give a whole number of 1 or more")
    if tile is not None and not isinstance(tile, int):
        raise OptionError(f"tile is {tile!r}; give whole latent cells of 8 pixels, or None")
    if tile is not None and not 0 <= tile_overlap < tile:
        raise OptionError(
            f"tile is {tile} with an overlap of {tile_overlap} latent cells; "
            "the overlap must be smaller than the tile and not negative"
        )
    if color_fix not in (AUTO, *COLOUR_FIXES):
        choices = ", ".join((AUTO, *COLOUR_FIXES))
        raise OptionError(f"color_fix is {color_fix!r}; choose from {choices}")
