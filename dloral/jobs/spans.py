"""Spans: any range of a clip's frames, restored to what an unbroken run gives for them.

Output t depends on the input t and on the few before it that the model's ``reach`` says. So a span
is restored with a halo: those before its first frame go through the generator too, and are then
discarded.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from dloral.errors import OptionError
from dloral.frames.resize import enlargement, resize_bicubic
from dloral.jobs.overlap import is_worth_it, may_overlap, read_ahead
from dloral.options import AUTO, AUTO_TILE, UpscaleOptions
from dloral.prompts import Scene, find_scenes, prompt_at
from dloral.stages import ENLARGE, READ, each_in_stage, stage
from dloral.video.alpha import with_alpha
from dloral.video.colour import over_white
from dloral.video.encoding import OutputFormat
from dloral.video.images import frame_files
from dloral.video.probe import ClipInfo, probe
from dloral.video.reader import Frame, read_frames
from dloral.video.seeking import read_frames_from
from dloral.video.treatment import target_size
from dloral.weights.resolve import known_weights

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator


class RestoredFrame(NamedTuple):
    """``number`` counts the frames of the job from 0. ``frame``: as it was read; ``lq_frame``: its
    bicubic enlargement, ``pixels``: restored, both (3,H,W) in [0, 1]."""

    number: int
    frame: Frame
    lq_frame: Tensor
    pixels: Tensor

    @property
    def to_write(self) -> "RestoredFrame":
        """Without what is only for display, so that it takes less memory while it waits."""
        return self._replace(lq_frame=self.pixels)

    @property
    def with_alpha(self) -> Tensor:
        """What is written: ``pixels``, and where the source has transparency (4,H,W)."""
        return with_alpha(self.pixels, self.frame.alpha)

    def seen(self, pixels: Tensor) -> Tensor:
        """``pixels`` or ``lq_frame`` (3,H,W), over a white page where the source is transparent."""
        if self.frame.alpha is None:
            return pixels
        rgba = with_alpha(pixels, self.frame.alpha)
        return over_white(rgba[:3], rgba[3])


@dataclass(frozen=True)
class Job:
    """Everything that a result depends on except the network; can be sent to any process.

    ``scenes``: with their prompts. ``chosen``: how the target's picture is encoded; ``header``: see
    :class:`dloral.video.encoding.FrameEncoder`.
    """

    clip: ClipInfo
    options: UpscaleOptions
    scenes: tuple[Scene, ...]
    chosen: OutputFormat
    header: str

    @property
    def height(self) -> int:
        return self.chosen.height

    @property
    def width(self) -> int:
        return self.chosen.width

    def may_overlap(
        self, place: torch.device, asked: bool | None = None, is_alone: bool = True
    ) -> bool:
        """Whether frames are read and written while others are restored on ``place``. ``asked``:
        None to let :func:`dloral.jobs.overlap.is_worth_it` decide."""
        if asked is None:
            asked = is_worth_it(place, is_alone)
        return asked and may_overlap(self.clip, (self.height, self.width), self.options.batch_size)


def restore_span(
    source: ClipInfo | str | Path,
    first: int,
    last: int | None = None,
    options: UpscaleOptions | None = None,
    pipe: "FrameGenerator | None" = None,
    scenes: Sequence[Scene] | None = None,
    on_note: Callable[[str], None] | None = None,
    overlap: bool | None = None,
) -> Generator[RestoredFrame, None, None]:
    """Restore the frames ``first`` to ``last`` (included; None: to the end) of a source.

    Numbers count from 0 at the first frame that ``options.start`` leaves; the frames are those of
    an unbroken run. If the source ends sooner, so does the span. ``pipe``, ``scenes``: loaded and
    found if not given. ``overlap``: frames are read while others are restored, if there is room
    for them; None: only if it is worth it, too. Raises OptionError for an invalid range.
    """
    if first < 0 or (last is not None and last < first):
        raise OptionError(
            "{value} is not a range of frames",
            remedy="give the first frame from 0 on, and a last one that is not before it",
            value=f"{first} to {last}",
        )
    options = options or UpscaleOptions()
    clip = source if isinstance(source, ClipInfo) else probe(source)
    if pipe is None:
        from dloral.weights.loading import load_pipeline  # seconds

        pipe = load_pipeline(
            options.model, options.device, options.dtype, options.vae, options.runtime
        )
    if not scenes:
        scenes = list(find_scenes(clip, options, pipe))
    if overlap is None:
        overlap = is_worth_it(pipe.execution_device)
    halo = min(pipe.reach(options.window), first)
    most = None if last is None else last - first + 1 + halo
    reading = _read_enlarged(clip, first - halo, most, options, on_note)
    if overlap and may_overlap(clip, output_size(clip, options), options.batch_size):
        reading = read_ahead(reading, options.batch_size)
    enlarged = enlarged_by(clip, options)
    with (
        reading as pairs,
        closing(_restore(pairs, options, pipe, scenes, on_note, enlarged)) as restoring,
    ):
        for index, restored in enumerate(restoring):
            if index >= halo:
                yield RestoredFrame(first - halo + index, *restored)


@contextmanager
def _read_enlarged(
    clip: ClipInfo,
    first: int,
    most: int | None,
    options: UpscaleOptions,
    on_note: Callable[[str], None] | None,
) -> Iterator[Iterator[tuple[Frame, Tensor]]]:
    """``most`` frames (None: all) from number ``first`` on, each with its bicubic enlargement."""
    height, width = output_size(clip, options)

    def enlarged(frame: Frame) -> tuple[Frame, Tensor]:
        with stage(ENLARGE):
            large = resize_bicubic(frame.pixels[None], height, width, options.bicubic)[0]
        return frame, large

    with read_frames_from(clip, first, options.start, options.duration, on_note) as frames:
        yield map(enlarged, islice(each_in_stage(READ, frames), most))


def _restore(
    pairs: Iterator[tuple[Frame, Tensor]],
    options: UpscaleOptions,
    pipe: "FrameGenerator",
    scenes: Sequence[Scene],
    on_note: Callable[[str], None] | None,
    enlarged: float,
) -> Generator[tuple[Frame, Tensor, Tensor], None, None]:
    """(source frame, its bicubic enlargement, restored frame) for every frame, in order."""
    waiting: deque[tuple[Frame, Tensor]] = deque()  # not yet restored: at most one batch
    shown: deque[Fraction] = deque()  # times of frames whose prompt has yet to be given

    def lq_frames() -> Iterator[Tensor]:
        for frame, lq_frame in pairs:
            waiting.append((frame, lq_frame))
            shown.append(frame.time)
            yield lq_frame

    restored = pipe.stream(
        lq_frames(),
        prompt=(prompt_at(scenes, shown.popleft()) for _ in count()),
        **stream_settings(options),
        enlarged=enlarged,
        on_note=on_note,
    )
    for restored_frame in restored:
        frame, lq_frame = waiting.popleft()
        if options.strength < 1:
            restored_frame = torch.lerp(lq_frame, restored_frame, options.strength)
        yield frame, lq_frame, restored_frame


def output_size(clip: ClipInfo, size: float | UpscaleOptions) -> tuple[int, int]:
    """Height and width of the result, in pixels: the source's times a scale, rounded, or what
    options ask for."""
    return target_size(
        clip, size if isinstance(size, UpscaleOptions) else UpscaleOptions(scale=size)
    )


def enlarged_by(clip: ClipInfo, size: float | UpscaleOptions) -> float:
    """How many times a clip's frames are enlarged for the size asked for, after rounding."""
    return enlargement((clip.height, clip.width), output_size(clip, size))


def first_time(clip: ClipInfo, options: UpscaleOptions) -> Fraction | None:
    """When the job's first frame is shown in the source, in seconds; None if it has no frames."""
    with read_frames(clip, options.start, options.duration) as frames:
        first = next(frames, None)
    return None if first is None else Fraction(first.time)


def expected_frames(clip: ClipInfo, options: UpscaleOptions) -> int | None:
    """How many frames a job will restore, as far as the source tells before it is read."""
    if clip.num_frames is None:
        return None
    left = clip.num_frames - round(options.start * clip.fps)
    if options.duration is not None:
        left = min(left, round(options.duration * clip.fps))
    return max(left, 0) or None


def stream_settings(options: UpscaleOptions) -> dict[str, Any]:
    """The arguments of :meth:`dloral.frame_generator.FrameGenerator.stream` that options set."""
    names = ("consistency", "detail", "window", "tile_overlap", "color_fix", "batch_size")
    return {name: getattr(options, name) for name in names} | {"tile": chosen_tile(options)}


def chosen_tile(options: UpscaleOptions) -> int | None:
    """``tile`` as the pipeline takes it."""
    return AUTO_TILE if options.tile == AUTO else options.tile  # type: ignore[return-value]


def identity_of(
    clip: ClipInfo, options: UpscaleOptions, chosen: OutputFormat, header: str
) -> dict[str, Any]:
    """What must be the same for a job to be resumed: the source, and what changes the result."""
    free = {"resume", "batch_size", "size_changes"}
    settings = {name: value for name, value in asdict(options).items() if name not in free}
    made = {"suffix": chosen.suffix, "encoder": header, "weights": known_weights(options.model)}
    return {**_source_of_job(clip), **settings, **made}


def _source_of_job(clip: ClipInfo) -> dict[str, Any]:
    """What distinguishes a source from another, or from itself before it was rewritten."""
    if clip.kind == "pipe":
        return {}
    if clip.kind != "folder":
        status = clip.path.stat()
        return {"source_bytes": status.st_size, "source_time": status.st_mtime_ns}
    # Overwriting a frame in place leaves the folder's own size and time unchanged.
    digest = sha256()
    for file in frame_files(clip.path):
        status = file.stat()
        digest.update(os.fsencode(file.name))  # a name need not be UTF-8
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return {"source_frames": digest.hexdigest()}
