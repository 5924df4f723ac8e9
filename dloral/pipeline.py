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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from dloral.errors import OptionError
from dloral.frames.colour import COLOUR_FIXES, fix_colour
from dloral.frames.resize import pad_to_latent_grid, shrink_for_flow
from dloral.frames.tiles import blend_tiles
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet, warp
from dloral.models.unet import TwoLoRAUNet
from dloral.models.vae import CompactVAE
from dloral.options import AUTO, WINDOWS

OUTPUT_TYPES = ("pt", "np", "pil", "latent")


@dataclass
class DLoRALOutput(BaseOutput):
    """``frames``: float tensor (T,3,H,W) in [0, 1], the same as an array (T,H,W,3), a list of PIL
    images, or latents (T,C,h,w), by ``output_type``."""

    frames: Any


@dataclass(frozen=True)
class _Remembered:
    """What a frame leaves behind for the frames after it."""

    latents: Tensor  # (C,h,w)
    small_frame: Tensor  # (3,h,w), for the flow net


class DLoRALPipeline(DiffusionPipeline):
    """One-step video super-resolution with C-LoRA (consistency) and D-LoRA (detail).

    ``decoder_adds_input``: the VAE's decoder gives the difference to the low-quality frame (the
    compact model) rather than the frame itself (Stable Diffusion's). ``color_fix``: what the model
    is best used with (the full one: AdaIN, as released).
    """

    _optional_components = ["tokenizer", "text_encoder", "scheduler"]  # noqa: RUF012 (diffusers)
    model_cpu_offload_seq = "text_encoder->vae->flow->retrieval->unet"

    def __init__(
        self,
        vae: AutoencoderKL | CompactVAE,
        unet: TwoLoRAUNet,
        flow: SPyNet,
        retrieval: CrossFrameRetrieval,
        tokenizer: Any = None,
        text_encoder: Any = None,
        scheduler: Any = None,
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
        )
        self.register_to_config(decoder_adds_input=decoder_adds_input, color_fix=color_fix)
        # No bar unless asked for: every face of the software shows its own.
        self.set_progress_bar_config(disable=True)

    # The four steps --------------------------------------------------------------------------

    def encode(self, lq_frames: Tensor) -> Tensor:
        """Frames (B,3,H,W) in [0, 1], H and W multiples of 8 -> latents (B,C,h,w).

        The mean of the VAE's distribution times its scaling factor (notes, step 1).
        """
        encoded = self.vae.encode(self._to_network(lq_frames))
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

    def decode(self, restored_latents: Tensor, lq_frames: Tensor) -> Tensor:
        """Latents (B,C,h,w) and the padded input (B,3,H,W) -> frames (B,3,H,W), unclamped."""
        decoded = self.vae.decode(restored_latents / self.vae.config.scaling_factor).sample.float()
        if self.config.decoder_adds_input:
            return decoded / 2 + lq_frames
        return (decoded.clamp(-1, 1) + 1) / 2

    # Around the steps ------------------------------------------------------------------------

    def encode_prompt(self, prompt: str) -> Tensor | None:
        """Embeddings (1, tokens, D) of the text encoder's last layer; None for a model without."""
        if self.text_encoder is None:
            return None
        tokens = self.tokenizer(
            prompt,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self.text_encoder.device))[0]

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
        return DLoRALOutput(frames=_as_output(torch.stack(restored), output_type))

    @torch.no_grad()
    def stream(
        self,
        frames: Iterable[Tensor],
        prompt: str = "",
        consistency: float = 1.0,
        detail: float = 1.0,
        window: int = 1,
        tile: int | None = None,
        tile_overlap: int = 32,
        color_fix: str = AUTO,
        batch_size: int = 1,
        latents_only: bool = False,
    ) -> Iterator[Tensor]:
        """Restored frames (3,H,W) in [0, 1], one for each of ``frames`` (3,H,W), as they are ready.

        What is kept between frames is ``window`` latents and small frames, so memory does not
        grow with the clip. Arguments as in :meth:`__call__`; ``latents_only`` yields restored
        latents (C,h,w).
        """
        _check(
            window=window,
            tile=tile,
            tile_overlap=tile_overlap,
            color_fix=color_fix,
            batch_size=batch_size,
        )
        method = self.config.color_fix if color_fix == AUTO else color_fix
        prompt_embeds = self.encode_prompt(prompt)
        memory: deque[_Remembered] = deque(maxlen=window)
        source = iter(frames)
        while batch := list(islice(source, batch_size)):
            # Every time, for another stream may have set others; costs nothing where none has.
            self.set_scales(consistency, detail)
            given = as_frames(batch).to(self._execution_device)
            lq_frames = pad_to_latent_grid(given)
            lq_latents = self.encode(lq_frames)
            small_frames = shrink_for_flow(lq_frames)
            previous = self._recall(memory, window, lq_latents, small_frames)
            restored = self.restore(
                lq_latents, small_frames, *previous, prompt_embeds, tile, tile_overlap
            )
            if latents_only:
                yield from restored.float().cpu()
                continue
            height, width = given.shape[-2:]
            decoded = self.decode(restored, lq_frames)[..., :height, :width]
            yield from fix_colour(decoded, given, method).cpu()

    @staticmethod
    def _recall(
        memory: deque[_Remembered], window: int, lq_latents: Tensor, small_frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Latents (K,B,C,h,w) and small frames (K,B,3,h,w) before each of B consecutive frames.

        ``memory`` holds the frames before the batch and is brought up to date. At the start of a
        clip the oldest frame stands in for those that never were (frame 0: itself).
        """
        frames = [_Remembered(*pair) for pair in zip(lq_latents, small_frames, strict=True)]
        known = [*memory, *frames]
        first = len(memory)
        memory.extend(frames)
        if not window:
            return lq_latents[None][:0], small_frames[None][:0]
        earlier = [
            known[max(first + index - offset, 0)]
            for offset in range(1, window + 1)
            for index in range(len(frames))
        ]
        shape = (window, len(frames))
        return (
            torch.stack([frame.latents for frame in earlier]).unflatten(0, shape),
            torch.stack([frame.small_frame for frame in earlier]).unflatten(0, shape),
        )

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


def as_frames(frames: Tensor | np.ndarray | Sequence[Image.Image | np.ndarray | Tensor]) -> Tensor:
    """Any accepted form of a clip -> float32 (T,3,H,W) in [0, 1]."""
    if isinstance(frames, list | tuple):
        pictures = [_as_tensor(picture) for picture in frames]
        if len({picture.shape for picture in pictures}) > 1:
            raise OptionError("frames are of different sizes; give frames of one size")
        clip = torch.stack(pictures) if pictures else torch.empty(0)
    else:
        clip = _as_tensor(frames)
    if clip.ndim == 4 and clip.shape[1] != 3 and clip.shape[-1] == 3:
        clip = clip.permute(0, 3, 1, 2)
    if clip.ndim != 4 or clip.shape[1] != 3 or not clip.numel():
        raise OptionError(
            f"frames have shape {tuple(clip.shape)}; give (T, 3, H, W) with at least one frame"
        )
    if clip.dtype == torch.uint8:
        return clip.float() / 255
    if not clip.is_floating_point():
        raise OptionError(f"frames are {clip.dtype}; give uint8, or float in [0, 1]")
    return clip.float()


def _as_tensor(picture: Any) -> Tensor:
    if isinstance(picture, Tensor):
        return picture
    if isinstance(picture, Image.Image):
        picture = picture.convert("RGB")
    # A copy where it must be one: arrays of pictures are often read-only or flipped views.
    return torch.from_numpy(np.require(picture, requirements=["C", "W"]))


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


def _as_output(restored: Tensor, output_type: str) -> Any:
    if output_type in ("pt", "latent"):
        return restored
    arrays = restored.permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return arrays
    return [Image.fromarray((array * 255).round().astype(np.uint8)) for array in arrays]
