"""One frame, or a part of it, restored again whenever a LoRA's scale changes.

What does not depend on the scales (decoding, enlarging, latents, flow, retrieval, the prompt) is
computed once for a frame and a part of it and kept; then only the UNet and the decoder run. Other
parts of the frame are computed separately, from frames that are decoded once if
:class:`dloral.studio.sources.Sources` has room to keep them, and again for each part if not.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dloral.errors import CancelledError
from dloral.frames.resize import LATENT_STRIDE, resize_bicubic, resize_bicubic_part
from dloral.jobs.spans import enlarged_by, output_size
from dloral.options import AUTO, AUTO_TILE, UpscaleOptions
from dloral.studio.gpu import kept, on_gpu
from dloral.studio.lending import preview_seconds
from dloral.studio.pictures import jpeg_of, png_of, within
from dloral.studio.runtime import Model
from dloral.studio.sources import Sources
from dloral.studio.speeds import Effort, Watch, work_of
from dloral.video.probe import ClipInfo

if TYPE_CHECKING:
    from dloral.generator import Prepared

FIRST_PIXELS = 256 * 256
"""Of the first preview, before it is known how fast this machine is."""

MOST_PIXELS = (AUTO_TILE * LATENT_STRIDE) ** 2
"""A frame of no more output pixels is never tiled, so its preview is what a run will make, up to
the blending with its predecessor."""

LIVELY_SECONDS = 0.45
"""What moving a scale may cost; the previewed part is as large as that allows."""

CONTEXT = 3 * LATENT_STRIDE
"""Pixels around a previewed part that the networks see too, so that its edges are as in a run."""

MOST_BACKGROUND = 2048
"""Pixels: the bicubic frame around a previewed part is sent with no longer side."""

BUSIEST_SIDE = 256
"""Pixels; where most is to be seen is looked for in a frame no larger."""

KEPT_PICTURES = 24
"""Rendered pictures of the current part that stay, for sliders that go back and forth."""


@dataclass(frozen=True)
class Region:
    """A part of the output frame, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True)
class Rendered:
    """``png`` of the restored ``region``; ``is_whole``: that is the whole frame; ``could_grow``: a
    larger part would still be lively; ``seconds`` that the networks took."""

    png: bytes
    region: Region
    is_whole: bool
    could_grow: bool
    seconds: float


class Preview:
    """The live preview of one clip, for one visitor.

    Of overlapping calls only the newest is computed; the others raise CancelledError.
    ``sources``: what all visitors' previews have read; one of its own by default.
    """

    def __init__(self, clip: ClipInfo, model: Model, sources: Sources | None = None) -> None:
        self._clip = clip
        self._sources = sources or Sources()
        self.model = model
        self._newest = 0
        self._counting = threading.Lock()
        self._working = threading.Lock()
        self._prepared: tuple[Any, Prepared | None] = (None, None)
        self._pictures: OrderedDict[Any, bytes] = OrderedDict()

    def background(self, index: int, scale: float, deinterlace: str = AUTO) -> bytes:
        """The whole bicubic frame as a JPEG, to be looked at around the previewed part."""
        with self._working, self._reading(index, 0, deinterlace) as frames:
            (frame,) = frames
            height, width = output_size(self._clip, scale)
            ratio = min(1.0, MOST_BACKGROUND / max(height, width))
            if max(frame.shape[1:]) <= ratio * max(height, width):  # no larger than is sent
                size = max(1, round(ratio * height)), max(1, round(ratio * width))
                frame = resize_bicubic(frame[None], *size)[0]
            return jpeg_of(frame, MOST_BACKGROUND)

    def bicubic(self, index: int, scale: float, region: Region, deinterlace: str = AUTO) -> bytes:
        """The bicubic part as a PNG; a corner beyond the frame is moved to its last pixel."""
        with self._working:
            height, width = output_size(self._clip, scale)
            region = _within_frame(region, height, width)
            return png_of(self._enlarged(index, scale, 0, deinterlace, region)[-1])

    def whole(self, index: int, options: UpscaleOptions) -> bytes:
        """Frame ``index`` as a PNG, as a run makes it; of more than MOST_PIXELS the part around the
        middle."""
        with self._working:
            size = output_size(self._clip, options.scale)
            region = part_of(*size, MOST_PIXELS, (0.5, 0.5))
            restored, _ = self._restore(None, options, region, index, steadied=True)
            if options.strength < 1:
                enlarged = self._enlarged(index, options.scale, 0, options.deinterlace, region)
                restored = torch.lerp(enlarged[-1], restored, options.strength)
            return png_of(restored)

    def render(
        self,
        index: int,
        options: UpscaleOptions,
        most_pixels: int | None = None,
        centre: tuple[float, float] | None = None,
    ) -> Rendered:
        """Frame ``index`` restored with ``options``; of a large frame the part around ``centre``
        (x and y in [0, 1]; None: where most is to be seen) that has about ``most_pixels``, by
        default what stays lively."""
        with self._counting:
            self._newest += 1
            own = self._newest
        with self._working:
            if own != self._newest:
                raise CancelledError("Superseded by a newer preview.")
            return self._render(index, options, most_pixels, centre)

    def fill(self, index: int, options: UpscaleOptions, region: Region) -> bytes:
        """Another part of the frame as a PNG, for what :meth:`render` left out. It keeps nothing,
        so that the next move of a scale is as quick as before; CancelledError where a newer render
        was asked for meanwhile."""
        own = self._newest
        with self._working:
            if own != self._newest:
                raise CancelledError("Superseded by a newer preview.")
            height, width = output_size(self._clip, options.scale)
            region = _within_frame(region, height, width)
            return png_of(self._restore(None, options, region, index)[0])

    def _render(
        self, index: int, options: UpscaleOptions, most_pixels: int | None, centre: Any
    ) -> Rendered:
        size = output_size(self._clip, options.scale)
        lively = self._lively_pixels()
        most = min(most_pixels or lively, MOST_PIXELS)
        if centre is None:
            box = part_of(*size, most, (0.5, 0.5))
            with self._reading(index, 0, options.deinterlace) as frames:
                (frame,) = frames
                ratio = frame.shape[1] / size[0]
                centre = busiest(frame, round(ratio * box.height), round(ratio * box.width))
                del frame
        region = part_of(*size, most, centre)
        source = (index, options.scale, options.window, options.deinterlace)
        part = (*source, options.prompt, region)
        look = (options.consistency, options.detail, options.color_fix)
        seconds = 0.0
        if self._prepared[0] != part:
            self._pictures.clear()
        if (part, look) not in self._pictures:
            restored, seconds = self._restore(part, options, region, index)
            self._pictures[part, look] = png_of(restored)
            while len(self._pictures) > KEPT_PICTURES:
                self._pictures.popitem(last=False)
        is_whole = (region.height, region.width) == size
        best = part_of(*size, min(self._lively_pixels(), MOST_PIXELS), centre)
        return Rendered(
            png=self._pictures[part, look],
            region=region,
            is_whole=is_whole,
            could_grow=not is_whole and best.pixels > 1.3 * region.pixels,
            seconds=seconds,
        )

    def _restore(
        self,
        part: Any,
        options: UpscaleOptions,
        region: Region,
        index: int,
        steadied: bool = False,
    ) -> tuple[Tensor, float]:
        """The restored region, (3,h,w) in [0, 1], and the seconds it took. What the scales do not
        change is kept under the name ``part``, for the next call that gives it. ``steadied``:
        blended with its predecessor, if the model does that."""
        seen = with_context(region, *output_size(self._clip, options.scale))
        known = self._prepared[1] if part and self._prepared[0] == part else None
        given = None
        if known is None:
            reach = self.model.pipe().reach(options.window) if steadied else options.window
            of_frame = index, options.scale, reach, options.deinterlace
            given = torch.stack(self._enlarged(*of_frame, seen))
        self.model.pipe()  # waits until it is loaded
        with self.model.turns.take():
            wide, prepared, efforts = _restore_part(
                self.model.key,
                given,
                options,
                known,
                enlarged_by(self._clip, options.scale),
                steadied,
            )
            if part is not None:
                self._prepared = part, prepared
        effort = efforts[0] + efforts[1]
        self.model.preview_timed(efforts[1].seconds, region.pixels)
        if known is None:
            self.model.timed(effort, work_of(options, (seen.height, seen.width)))
        else:
            self.model.speeds.paced(effort)
        return cut(wide, inside(region, seen)), effort.seconds

    def _enlarged(
        self, index: int, scale: float, window: int, deinterlace: str, region: Region
    ) -> list[Tensor]:
        """A part of frame ``index`` and of up to ``window`` before it at output size, oldest first.
        The rest of the enlargement is never made, however large that would be."""
        height, width = output_size(self._clip, scale)
        rows = region.y, region.y + region.height
        columns = region.x, region.x + region.width
        with self._reading(index, window, deinterlace) as frames:
            return [
                resize_bicubic_part(frame[None], height, width, rows, columns)[0]
                for frame in frames
            ]

    def _reading(
        self, index: int, window: int, deinterlace: str
    ) -> AbstractContextManager[Iterator[Tensor]]:
        """Frame ``index`` and up to ``window`` before it as they are read, oldest first."""
        return self._sources.reading(self._clip, index, window, deinterlace)

    def _lively_pixels(self) -> int:
        cost = self.model.preview_seconds_per_pixel
        return FIRST_PIXELS if cost is None else max(FIRST_PIXELS, int(LIVELY_SECONDS / cost))


@on_gpu(preview_seconds)
def _restore_part(
    model: tuple[str, str],
    lq_frames: Tensor | None,
    options: UpscaleOptions,
    prepared: "Prepared | None",
    enlarged: float,
    steadied: bool,
) -> tuple[Tensor, "Prepared", tuple[Effort, Effort]]:
    """The last of ``lq_frames`` restored, what was prepared for it, and the efforts for preparing
    and for the rest. No frames are needed where it is ``prepared``."""
    pipe = kept(model)
    watch = Watch()
    if prepared is None:
        assert lq_frames is not None
        # Kept on the CPU, for it is little. A still whose scales move is not blended with its
        # predecessor, which would have to be restored beside it at each move.
        layout = (options.window, options.prompt)
        prepared = pipe.prepare(lq_frames, *layout, count=1, steadied=steadied).to("cpu")
    preparing, watch = watch.effort, Watch()
    look = (options.consistency, options.detail, options.color_fix)
    restored = pipe.finish(prepared, *look, enlarged)[0].cpu()
    return restored, prepared, (preparing, watch.effort)


def part_of(height: int, width: int, most_pixels: int, centre: tuple[float, float]) -> Region:
    """The part around ``centre`` of a frame that has the frame's shape and about ``most_pixels``;
    its corner and size are multiples of the latent stride unless it is the whole frame."""
    if height * width <= most_pixels:
        return Region(0, 0, width, height)
    ratio = (most_pixels / (height * width)) ** 0.5
    sides, corners = [], []
    for full, middle in ((width, centre[0]), (height, centre[1])):
        side = max(LATENT_STRIDE, int(full * ratio) // LATENT_STRIDE * LATENT_STRIDE)
        side = min(side, full)
        corner = int(min(max(middle, 0), 1) * full - side / 2)
        corner = max(0, min(corner, full - side)) // LATENT_STRIDE * LATENT_STRIDE
        sides.append(side)
        corners.append(corner)
    return Region(corners[0], corners[1], sides[0], sides[1])


def busiest(frame: Tensor, height: int, width: int) -> tuple[float, float]:
    """The centre (x and y in [0, 1]) of the part of ``height`` x ``width`` pixels in which the
    brightness of ``frame`` (3,H,W) changes most; the middle where nothing does."""
    small = within(frame, BUSIEST_SIDE).float().mean(dim=0)
    rows, columns = small.shape
    energy = torch.zeros_like(small)
    energy[1:] += small.diff(dim=0).abs()
    energy[:, 1:] += small.diff(dim=1).abs()
    part = (
        max(1, min(rows, round(height * rows / frame.shape[1]))),
        max(1, min(columns, round(width * columns / frame.shape[2]))),
    )
    sums = F.avg_pool2d(energy[None, None], part, stride=1)[0, 0]
    if sums.max() - sums.min() < 1e-6:
        return 0.5, 0.5
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return (column + part[1] / 2) / columns, (row + part[0] / 2) / rows


def _within_frame(region: Region, height: int, width: int) -> Region:
    x, y = min(region.x, width - 1), min(region.y, height - 1)
    return Region(x, y, min(region.width, width - x), min(region.height, height - y))


def with_context(region: Region, height: int, width: int) -> Region:
    x, y = max(region.x - CONTEXT, 0), max(region.y - CONTEXT, 0)
    right = min(region.x + region.width + CONTEXT, width)
    bottom = min(region.y + region.height + CONTEXT, height)
    return Region(x, y, right - x, bottom - y)


def inside(region: Region, outer: Region) -> Region:
    return replace(region, x=region.x - outer.x, y=region.y - outer.y)


def cut(frame: Tensor, region: Region) -> Tensor:
    rows = slice(region.y, region.y + region.height)
    columns = slice(region.x, region.x + region.width)
    return frame[:, rows, columns]
