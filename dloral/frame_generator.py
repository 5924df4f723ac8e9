"""Clips of any length, windows, tiles, previews and lower limits, for any four-step model.

Legend: T frames of a clip, the rest as in :mod:`dloral.generator`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dloral.errors import OptionError
from dloral.frames.clips import Picture, as_output, checked_frames
from dloral.frames.colour import fix_colour
from dloral.frames.crisp import FULL_CRISPNESS_SCALE, crisp, crispness_at
from dloral.frames.grid import without_grid
from dloral.frames.resize import pad_to_latent_grid, shrink_for_flow
from dloral.frames.steady import LARGEST_SHARE, steady_in_turn
from dloral.frames.tiles import blend_tiles, tiles_of
from dloral.frames.waiting import Waiting
from dloral.frames.window import Window
from dloral.generator import Generator, Prepared
from dloral.looks import Look, check_layout
from dloral.memory import Limits, fit, is_out_of_memory, release_memory, step_down
from dloral.options import AUTO
from dloral.stages import COLOUR, CRISP, DECODE, ENCODE, FLOW, REFINE, STEADY, stage

OUTPUT_TYPES = ("pt", "np", "pil", "latent")

Parts = Sequence[tuple[Tensor, Tensor]]
"""(retrieved, aligned) latents of each tile, in the order of :func:`tiles_of`."""


@dataclass(frozen=True)
class RestoredFrames:
    """``frames``, in the form asked for."""

    frames: Any


class FrameGenerator(Generator):
    """Whole clips, windows, tiles, previews and lower limits for any four-step model."""

    def refine(
        self, aligned_latents: Tensor, retrieved_latents: Tensor, prompt_embeds: Tensor | None
    ) -> Tensor:
        """Restored latents (B,C,h,w): ``retrieved - eps`` (notes, steps 5 and 6)."""
        return retrieved_latents - self.predict(aligned_latents, retrieved_latents, prompt_embeds)

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
        """:meth:`retrieve` and :meth:`refine`, tile by tile where ``tile`` is given."""
        seen = (lq_latents, small_frames, previous_latents, previous_small_frames)
        parts = self._retrieve_tiles(seen, tile, tile_overlap)
        height, width = lq_latents.shape[-2:]
        return self._refine_tiles(parts, (height, width), prompt_embeds, tile, tile_overlap)

    def estimate_flows(self, small_frames: Tensor, previous_small_frames: Tensor) -> Tensor:
        """:meth:`estimate_flow` from frames (B,3,h,w) to each of K earlier ones (K,B,3,h,w):
        (K,B,2,h,w)."""
        window, batch = previous_small_frames.shape[:2]
        now = small_frames.expand(window, -1, -1, -1, -1).flatten(0, 1)
        flow = self.estimate_flow(now, previous_small_frames.flatten(0, 1))
        return flow.reshape(window, batch, *flow.shape[1:])

    def reach(self, window: int) -> int:
        """How many earlier frames a restored one depends on: the window, and one more if it is
        blended with its predecessor, which has a window of its own."""
        window = min(window, self.max_window)
        return window + 1 if window and self.steadying else window

    @torch.no_grad()
    def prepare(
        self,
        frames: Tensor,
        window: int = 1,
        prompt: str = "",
        count: int | None = None,
        tile: int | None = None,
        tile_overlap: int = 32,
        steadied: bool = True,
    ) -> Prepared:
        """Everything that does not depend on the LoRA scales (latents, flow, retrieval, prompt),
        for the last ``count`` (default: all) of consecutive frames (T,3,H,W) in [0, 1].

        Earlier frames only serve as context; :meth:`reach` says how many are of use.
        ``finish(prepare(frames))`` gives the same as :meth:`stream` for frames that begin a clip.
        ``steadied=False``: frames that are not blended with their predecessors at the end; for one
        frame, :meth:`finish` then takes half the time. Raises :class:`OptionError`.
        """
        check_layout(window, tile, tile_overlap)
        clip = checked_frames(frames).to(self.execution_device)
        chosen = len(clip) if count is None else count
        if not 0 < chosen <= len(clip):
            raise OptionError(
                "{option} is {value!r}", remedy=f"give 1 to {len(clip)}, the number of frames",
                option="count", value=count,
            )  # fmt: skip
        size = min(window, self.max_window)
        before, first = Window(size), len(clip) - chosen
        lead = min(first, self.reach(window) - size) if steadied else 0
        first -= lead
        for frame in clip[:first]:
            before.remember(*self._encoded(frame[None], None))
        encoded = [self._encoded(frame[None], None) for frame in clip[first:]]
        latents, small = (torch.cat(tensors) for tensors in zip(*encoded, strict=True))
        limits = Limits(len(encoded), tile, tile_overlap)
        embeds = self.encode_prompt(prompt)
        blended = steadied and bool(self.steadying)
        prepared = self._prepare(clip[first:], latents, small, before, embeds, limits, blended)
        return replace(prepared, lead=lead)

    @torch.no_grad()
    def finish(
        self,
        prepared: Prepared,
        consistency: float = 1.0,
        detail: float = 1.0,
        color_fix: str = AUTO,
        enlarged: float = FULL_CRISPNESS_SCALE,
    ) -> Tensor:
        """The restored frames (B,3,H,W) in [0, 1] at these LoRA scales, on the model's device.
        May be called any number of times. Raises :class:`OptionError`."""
        look = Look(consistency, detail, color_fix, enlarged)
        prepared = prepared.to(self.execution_device)
        finished = self._decode(prepared, self._refine(prepared, look), look)
        return self._steadied(finished, prepared.flow, None, look)[prepared.lead :]

    @torch.no_grad()
    def __call__(
        self,
        frames: Picture | Sequence[Picture],
        prompt: str = "",
        consistency: float = 1.0,
        detail: float = 1.0,
        window: int = 1,
        tile: int | None = None,
        tile_overlap: int = 32,
        color_fix: str = AUTO,
        output_type: str = "pt",
        batch_size: int = 1,
        *,
        enlarged: float = FULL_CRISPNESS_SCALE,
    ) -> Any:
        """Restore a clip that has been brought to its output size. T frames in, T frames out.

        ``frames``: float (T,3,H,W) in [0, 1], uint8 (T,3,H,W) or (T,H,W,3), or PIL images, of any
        size from 1 x 1 on; one PIL image is a clip of one frame. Frame 0 is its own predecessor.
        ``window`` is how many earlier frames CFR looks at (0, 1, 3 or 5; 0: each frame alone).
        ``tile`` and ``tile_overlap`` are in latent cells (96 and 32 are the reference's);
        ``tile=None`` does not tile.
        ``color_fix``: one of :data:`COLOUR_FIXES`, or auto for the model's own. ``enlarged``: how
        many times the frames were enlarged; a model with crispness applies less of it below 4.
        Raises :class:`OptionError` for a value outside its range, also one of a frame.
        """
        if output_type not in OUTPUT_TYPES:
            raise OptionError(
                f"output_type is {output_type!r}; choose from {', '.join(OUTPUT_TYPES)}"
            )
        clip = checked_frames(frames)
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
            enlarged=enlarged,
            latents_only=output_type == "latent",
        )
        restored = torch.stack(list(self._watched(results, len(clip))))
        return self._output(as_output(restored, output_type))

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
        enlarged: float = FULL_CRISPNESS_SCALE,
    ) -> Iterator[Tensor]:
        """Yield a restored frame (3,H,W) in [0, 1] for each of ``frames`` (3,H,W) when ready.

        Only ``window`` latents and small frames, and one result, are kept between frames, so memory
        does not grow with the clip. Arguments as in :meth:`__call__`; ``prompt`` may be one per
        frame, read in step with the frames; ``latents_only`` yields restored latents (C,h,w).

        Where memory is short, frames are restored in smaller steps than asked for (see
        :class:`dloral.memory.Limits`), from the start if that can be foreseen, and ``on_note`` is
        told. Raises :class:`ResourceError` where even the smallest do not fit.
        """
        look = Look(consistency, detail, color_fix, enlarged, latents_only)
        check_layout(window, tile, tile_overlap, batch_size)
        limits = Limits(batch_size, tile, tile_overlap)
        before = Window(min(window, self.max_window))
        waiting = Waiting(frames, prompt)
        embeds: dict[str, Tensor | None] = {}
        place = self.execution_device  # once: diffusers searches every layer for it
        begun = False
        while waiting.fill(limits.batch_size):
            height, width = waiting.frames(1).shape[-2:]
            if not begun:
                begun = True
                if fitting := fit(self, limits, height, width):
                    limits = self._adopt(*fitting, on_note)
            after = before.copy()
            results = self._attempt(waiting, after, embeds, limits, look, place)
            if results is None:
                release_memory()
                limits = self._adopt(*step_down(self, limits, height, width), on_note)
                continue
            before = after
            waiting.drop(len(results))
            yield from results

    def _attempt(
        self,
        waiting: Waiting,
        before: Window,
        known: dict[str, Tensor | None],
        limits: Limits,
        look: Look,
        place: torch.device,
    ) -> Tensor | None:
        """The next batch restored, on the CPU; None where memory ran out."""
        count = limits.batch_size
        try:
            embeds = self._embeds(waiting.prompts(count), known, limits)
            given = waiting.frames(count).to(place)
            latents, small = self._encoded(given, limits.vae_tile)
            blended = bool(self._share(look)) and not look.latents_only
            prepared = self._prepare(given, latents, small, before, embeds, limits, blended)
            del latents, small
            restored = self._refine(prepared, look)
            if look.latents_only:
                return restored.float().cpu()
            finished = self._decode(prepared, restored, look)
            steadied = self._steadied(finished, prepared.flow, before.finished, look)
            # A copy: a slice would keep the batch, and whoever gets a frame may write on it.
            before.finished = finished[-1:].clone() if prepared.flow is not None else None
            return steadied.cpu()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return None  # outside the handler, which holds on to the exception

    def _encoded(self, frames: Tensor, vae_tile: int | None) -> tuple[Tensor, Tensor]:
        """Frames (B,3,H,W) -> latents (B,C,h,w) and small frames (B,3,h,w) for the flow."""
        padded = pad_to_latent_grid(frames, self.latent_stride)
        with stage(ENCODE):
            latents = self.encode(padded, vae_tile)
        with stage(FLOW):
            return latents, shrink_for_flow(padded, self.latent_stride)

    def _prepare(
        self,
        frames: Tensor,
        lq_latents: Tensor,
        small_frames: Tensor,
        before: Window,
        prompt_embeds: Tensor | None,
        limits: Limits,
        blended: bool,
    ) -> Prepared:
        """Prepare a batch; updates ``before``. ``blended``: with the flow that blending needs."""
        seen = (lq_latents, small_frames, *before.recall(lq_latents, small_frames))
        cells = (lq_latents.shape[-2], lq_latents.shape[-1])
        tiles, flow = (limits.tile, limits.tile_overlap), None
        one_tile = len(tiles_of(*cells, *tiles)) == 1
        if blended and len(seen[3]):
            with stage(FLOW):
                flow = self.estimate_flows(small_frames, seen[3] if one_tile else seen[3][:1])
        parts = self._retrieve_tiles(seen, *tiles, flow if one_tile else None)
        nearest = None if flow is None else flow[0]
        return Prepared(frames, tuple(parts), cells, prompt_embeds, limits, nearest)

    def _retrieve_tiles(
        self,
        seen: tuple[Tensor, Tensor, Tensor, Tensor],
        tile: int | None,
        tile_overlap: int,
        flow: Tensor | None = None,
    ) -> Parts:
        """:meth:`retrieve` tile by tile; as in the reference, a tile estimates its own flow.
        ``flow``: of a frame that is one tile, where it is known."""
        height, width = seen[0].shape[-2:]
        areas = tiles_of(height, width, tile, tile_overlap)
        if flow is not None:
            return [self.retrieve(*seen, flow)]
        return [
            self.retrieve(*(whole[..., rows, columns] for whole in seen)) for rows, columns in areas
        ]

    def _refine_tiles(
        self,
        parts: Parts,
        cells: tuple[int, int],
        prompt_embeds: Tensor | None,
        tile: int | None,
        tile_overlap: int,
    ) -> Tensor:
        """:meth:`refine` tile by tile. As in the reference, ``retrieved`` and ``eps`` are both
        blended before they are subtracted."""
        if len(parts) == 1:
            ((retrieved, aligned),) = parts
            return self.refine(aligned, retrieved, prompt_embeds)
        coming = iter(parts)

        def one_tile(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
            retrieved, aligned = next(coming)
            return retrieved, self.predict(aligned, retrieved, prompt_embeds)

        blended, eps = blend_tiles(one_tile, *cells, tile, tile_overlap)
        return blended - eps

    def _refine(self, prepared: Prepared, look: Look) -> Tensor:
        # Every time, since another stream may have set others; cheap if none has.
        with stage(REFINE):
            self.set_scales(look.consistency, look.detail)
            limits, embeds = prepared.limits, prepared.prompt_embeds
            return self._refine_tiles(
                prepared.parts, prepared.cells, embeds, limits.tile, limits.tile_overlap
            )

    def _decode(self, prepared: Prepared, restored_latents: Tensor, look: Look) -> Tensor:
        height, width = prepared.frames.shape[-2:]
        with stage(DECODE):
            padded = pad_to_latent_grid(prepared.frames, self.latent_stride)
            decoded = self.decode(restored_latents, padded, prepared.limits.vae_tile)
        method = self.default_color_fix if look.color_fix == AUTO else look.color_fix
        with stage(COLOUR):
            fixed = fix_colour(decoded[..., :height, :width], prepared.frames, method)
        reach = crispness_at(look.enlarged) * look.detail
        with stage(CRISP):
            fixed = without_grid(fixed, self.grid_period)
            if not reach * self.crispness:
                return fixed
            amount = self.crispness * max(reach, 1.0)
            return crisp(fixed, amount, self.smoothing, share=min(reach, 1.0))

    def _steadied(
        self, finished: Tensor, flow: Tensor | None, before: Tensor | None, look: Look
    ) -> Tensor:
        share = self._share(look)
        with stage(STEADY):
            if flow is None or not share:
                return finished
            return steady_in_turn(finished, before, flow, share, self.latent_stride)

    def _share(self, look: Look) -> float:
        """Of its predecessor in a frame, at the most."""
        return min(LARGEST_SHARE, self.steadying * look.consistency)

    def _embeds(
        self, prompts: list[str], known: dict[str, Tensor | None], limits: Limits
    ) -> Tensor | None:
        """Embeddings (B,tokens,D) of a batch's prompts, or (1,tokens,D) if all are the same."""
        for prompt in prompts:
            if prompt not in known:
                known[prompt] = self.encode_prompt(prompt)
        if not limits.keep_text:
            self.adopt(limits)  # reading a prompt has brought the text encoder back
        distinct = [known[prompt] for prompt in dict.fromkeys(prompts)]
        if len(distinct) == 1 or distinct[0] is None:
            return distinct[0]
        return torch.cat([known[prompt] for prompt in prompts])  # type: ignore[misc]

    def _adopt(self, limits: Limits, note: str, on_note: Callable[[str], None] | None) -> Limits:
        self.adopt(limits)
        if on_note is not None:
            on_note(note)
        return limits

    def _watched(self, results: Iterator[Tensor], total: int) -> Iterable[Tensor]:
        """``results`` unchanged; a hook for implementations that show progress."""
        return results

    def _output(self, frames: Any) -> Any:
        return RestoredFrames(frames)
