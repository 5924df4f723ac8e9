"""One second of part of a clip, restored, to show its temporal stability before a run."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from dloral.errors import CancelledError
from dloral.frames.resize import resize_bicubic_part
from dloral.jobs.spans import enlarged_by, output_size
from dloral.options import UpscaleOptions
from dloral.studio.gpu import kept, on_gpu
from dloral.studio.lending import motion_seconds
from dloral.studio.pictures import stacked
from dloral.studio.preview import Region, cut, inside, with_context
from dloral.studio.runtime import Model
from dloral.studio.sources import Sources, read_as, reading_bytes, source_frames
from dloral.video.encoders import FOR_VIEWING
from dloral.video.probe import ClipInfo
from dloral.video.writer import open_writer

SECONDS = 1
MOST_FRAMES = 30
MOST_PIXELS = 256 * 256
"""Of the part, so that its second is ready soon."""


@dataclass(frozen=True)
class Motion:
    """``file``: an H.264 clip, the plain enlargement above the restored part; ``region``: that part
    of the output frame; ``first``: the index of its first frame; ``count``: its frames."""

    file: Path
    region: Region
    first: int
    count: int


def motion_steps(
    clip: ClipInfo,
    model: Model,
    index: int,
    options: UpscaleOptions,
    region: Region,
    file: Path,
    sources: Sources,
) -> Generator[int | Motion, None, None]:
    """Restore about one second, at most :data:`MOST_FRAMES` frames, from frame ``index`` on, or
    from earlier if the clip ends sooner, into ``file``; yields the number of frames done, and
    finally the Motion. Closing it early leaves no file. ``sources``: where all visitors' calls wait
    for memory; ResourceError if this machine has too little for the clip's frames, CancelledError
    where the clip turns out to have no such frame."""
    height, width = output_size(clip, options.scale)
    total = clip.num_frames or 1
    count = max(1, min(MOST_FRAMES, round(SECONDS * clip.fps), total))
    first = max(0, min(index, total - count))
    corner = min(region.x, max(width - 2, 0)), min(region.y, max(height - 2, 0))
    region = Region(*corner, region.width, region.height)
    region = Region(*corner, *_even(region, height, width))
    seen = with_context(region, height, width)
    pipe = model.pipe()  # waits until it is loaded
    before = max(first - pipe.reach(options.window), 0)
    rows, columns = (seen.y, seen.y + seen.height), (seen.x, seen.x + seen.width)
    with sources.held_back(clip, reading_bytes(clip)):
        read = source_frames(read_as(clip, options.deinterlace), before, first + count - 1)
        frames = [
            resize_bicubic_part(frame[None], height, width, rows, columns)[0] for frame in read
        ]
    count = len(frames) - (first - before)
    if count < 1:
        raise CancelledError("The clip ends before this frame.")
    shown = inside(region, seen)
    duration = 1 / clip.fps
    with open_writer(
        file,
        width=region.width,
        height=2 * region.height,
        source=clip,
        codec=FOR_VIEWING,
        duration=count * duration,
    ) as writer:
        steps = _restored(model.key, frames, options, enlarged_by(clip, options.scale))
        for number, lq_frame in enumerate(frames):
            with model.turns.take():  # lets a job's frames and previews in between
                restored = next(steps)
            made = number - (first - before)
            if made < 0:
                continue
            pair = stacked(cut(lq_frame, shown), cut(restored, shown))
            writer.write(pair, Fraction(made) * duration, duration)
            yield made + 1
    yield Motion(file, region, first, count)


@on_gpu(motion_seconds)
@torch.no_grad()
def _restored(
    model: tuple[str, str], frames: Iterable[Tensor], options: UpscaleOptions, enlarged: float
) -> Iterator[Tensor]:
    pipe = kept(model)
    for frame in pipe.stream(
        frames,
        prompt=options.prompt,
        consistency=options.consistency,
        detail=options.detail,
        window=options.window,
        color_fix=options.color_fix,
        enlarged=enlarged,
    ):
        yield frame.float().cpu()


def _even(region: Region, height: int, width: int) -> tuple[int, int]:
    """Width and height as even numbers, which H.264 needs."""
    return (
        max(2, min(region.width, width - region.x) // 2 * 2),
        max(2, min(region.height, height - region.y) // 2 * 2),
    )
