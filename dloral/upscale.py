"""The whole story, file to file: read, enlarge, restore, write, and say how it goes.

:func:`upscale_steps` is a generator: each value is a :class:`Progress` that any face can show, and
closing it cancels the job within a frame, leaving nothing behind. :func:`upscale_video` runs it to
the end.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from hashlib import sha256
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dloral.errors import InputError, Setting
from dloral.frames.resize import resize_bicubic
from dloral.options import AUTO, AUTO_TILE, UpscaleOptions
from dloral.prompts import Scene, find_scenes, prompt_at
from dloral.video.images import frame_files
from dloral.video.known import source_notes
from dloral.video.probe import ClipInfo, probe
from dloral.video.reader import Frame, read_frames
from dloral.video.store import FrameStore
from dloral.video.writer import open_writer
from dloral.weights.fetch import FetchPlan, FetchProgress
from dloral.weights.resolve import fetch_missing

if TYPE_CHECKING:
    from dloral.pipeline import DLoRALPipeline


@dataclass(frozen=True)
class Progress:
    """How far a job is. ``stage``: fetching, loading, looking, restoring, writing or done.

    ``frame`` of ``num_frames`` (None where the source does not say) are restored, at
    ``frames_per_second``. ``restored_frame`` and ``lq_frame`` are the newest pair, (3,H,W) in
    [0, 1], shown at ``time`` of the source for ``duration`` seconds. ``notes`` say what the result
    could not keep of the source and where memory was short. ``scenes``: each with its prompt, as
    far as they are found. ``fetched``: what comes from the Hub while the stage is fetching.
    """

    stage: str
    frame: int = 0
    num_frames: int | None = None
    frames_per_second: float = 0.0
    restored_frame: Tensor | None = None
    lq_frame: Tensor | None = None
    target: Path | None = None
    notes: tuple[str, ...] = field(default=())
    time: Fraction = Fraction(0)
    duration: Fraction = Fraction(0)
    scenes: tuple[Scene, ...] = ()
    fetched: FetchPlan | FetchProgress | None = None

    @property
    def seconds_left(self) -> float | None:
        if self.num_frames is None or not self.frames_per_second:
            return None
        return max(self.num_frames - self.frame, 0) / self.frames_per_second


def upscale_video(
    source: str | Path,
    target: str | Path,
    options: UpscaleOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    pipe: "DLoRALPipeline | None" = None,
    scenes: Sequence[Scene] | None = None,
) -> Path:
    """Restore a clip, an image or a folder of frames, and write it to ``target``; returns that.

    ``pipe``: a loaded pipeline to use instead of loading ``options.model``. ``scenes``: prompts to
    use instead of asking the tagger (:func:`dloral.prompts.find_scenes` gives some to edit). Raises
    :class:`dloral.DLoRALError` with one line for whatever the caller can mend.
    """
    for progress in upscale_steps(source, target, options, pipe, scenes):
        if on_progress is not None:
            on_progress(progress)
    return Path(target)


def upscale_steps(
    source: str | Path,
    target: str | Path,
    options: UpscaleOptions | None = None,
    pipe: "DLoRALPipeline | None" = None,
    scenes: Sequence[Scene] | None = None,
) -> Generator[Progress, None, None]:
    """The job as a generator; see :func:`upscale_video`."""
    options = options or UpscaleOptions()
    clip = probe(source)
    notes = source_notes(clip, options.start, options.size_changes)
    height, width = output_size(clip, options.scale)
    num_frames = expected_frames(clip, options)
    writing = open_writer(
        target,
        width=width,
        height=height,
        source=clip,
        codec=options.codec,
        crf=options.crf,
        bit_depth=options.bit_depth,
        start=options.start,
        duration=options.duration,
    )
    with (
        writing as writer,
        read_frames(clip, options.start, options.duration, notes.append) as frames,
    ):
        if pipe is None:
            for told in fetch_missing(options.model):
                yield Progress("fetching", num_frames=num_frames, fetched=told)
        yield Progress("loading", num_frames=num_frames)
        if pipe is None:
            from dloral.weights.loading import load_pipeline  # seconds, which the page has not

            pipe = load_pipeline(options.model, options.device, options.dtype, options.vae)
        if not scenes:
            scenes = []
            for scene in find_scenes(clip, options, pipe):
                scenes.append(scene)
                if scene.prompt == options.prompt:
                    continue  # nobody was asked
                yield Progress("looking", num_frames=num_frames, scenes=tuple(scenes))
        clock = _Clock()
        done = 0
        store = FrameStore(Path(target), job_of(clip, options, scenes)) if options.resume else None
        short: list[str] = []
        restoring = _restore(pipe, frames, height, width, options, store, scenes, short.append)
        with closing(restoring):
            for frame, lq_frame, restored_frame in restoring:
                writer.write(restored_frame, frame.time, frame.duration)
                done += 1
                yield Progress(
                    "restoring",
                    done,
                    num_frames,
                    clock.rate(done),
                    restored_frame,
                    lq_frame,
                    time=frame.time,
                    duration=frame.duration,
                )
        if not done:
            raise InputError(
                "{path} has no frame from {value:g} s on",
                remedy="give an earlier {start} or a longer {duration}",
                path=clip.path,
                value=options.start,
                start=Setting("start"),
                duration=Setting("duration"),
            )
        yield Progress("writing", done, done, clock.rate(done))
    left_over = store.remove() if store else []
    yield Progress(
        "done",
        done,
        done,
        clock.rate(done),
        target=Path(target),
        notes=(*notes, *writer.notes, *short, *left_over),
        scenes=tuple(scenes),
    )


def output_size(clip: ClipInfo, scale: float) -> tuple[int, int]:
    """Height and width of the result, in pixels: the source's times ``scale``, rounded."""
    return max(1, round(clip.height * scale)), max(1, round(clip.width * scale))


def expected_frames(clip: ClipInfo, options: UpscaleOptions) -> int | None:
    """How many frames a job will restore, as far as the source tells before it is read."""
    if clip.num_frames is None:
        return None
    left = clip.num_frames - round(options.start * clip.fps)
    if options.duration is not None:
        left = min(left, round(options.duration * clip.fps))
    return max(left, 0) or None


def chosen_tile(options: UpscaleOptions) -> int | None:
    """``tile`` as the pipeline takes it."""
    return AUTO_TILE if options.tile == AUTO else options.tile  # type: ignore[return-value]


def _restore(
    pipe: "DLoRALPipeline",
    frames: Iterator[Frame],
    height: int,
    width: int,
    options: UpscaleOptions,
    store: FrameStore | None,
    scenes: Sequence[Scene],
    on_note: Callable[[str], None],
) -> Generator[tuple[Frame, Tensor, Tensor], None, None]:
    """(source frame, its bicubic enlargement, restored frame) for every frame, in order.

    Frames that ``store`` has are taken from it. The ``window`` frames before the first one it has
    not are restored all the same: their latents are what the next ones look at.
    """
    waiting: deque[tuple[Frame, Tensor]] = deque()  # read, not yet restored: at most one batch
    shown: deque[Fraction] = deque()  # times of frames whose prompt is still to be given
    stored = store.count if store else 0
    looked_at: deque[tuple[Frame, Tensor]] = deque(maxlen=options.window)

    def read() -> Iterator[tuple[Frame, Tensor]]:
        for frame in frames:
            yield frame, resize_bicubic(frame.pixels[None], height, width)[0]

    enlarging = read()
    for index, (frame, lq_frame) in enumerate(islice(enlarging, stored)):
        assert store is not None
        looked_at.append((frame, lq_frame))
        yield frame, lq_frame, store.read(index)

    def enlarged() -> Iterator[Tensor]:
        for pair in chain(tuple(looked_at), enlarging):
            waiting.append(pair)
            shown.append(pair[0].time)
            yield pair[1]

    restored = pipe.stream(
        enlarged(),
        prompt=(prompt_at(scenes, shown.popleft()) for _ in count()),
        consistency=options.consistency,
        detail=options.detail,
        window=options.window,
        tile=chosen_tile(options),
        tile_overlap=options.tile_overlap,
        color_fix=options.color_fix,
        batch_size=options.batch_size,
        on_note=on_note,
    )
    for index, restored_frame in enumerate(restored):
        frame, lq_frame = waiting.popleft()
        if index < len(looked_at):
            continue
        if options.strength < 1:
            restored_frame = torch.lerp(lq_frame, restored_frame, options.strength)
        if store:
            store.append(restored_frame)
        yield frame, lq_frame, restored_frame


def job_of(clip: ClipInfo, options: UpscaleOptions, scenes: Sequence[Scene]) -> dict[str, Any]:
    """What must be the same for a stopped job to be resumed: the source, the options that
    change a frame, and the prompts."""
    free = {"resume", "size_changes", "codec", "crf", "bit_depth", "batch_size"}
    chosen = {name: value for name, value in asdict(options).items() if name not in free}
    prompts = [[str(scene.start), scene.prompt] for scene in scenes]
    return {**_source_of_job(clip), "scenes": prompts, **chosen}


def _source_of_job(clip: ClipInfo) -> dict[str, Any]:
    """What tells a source from another one, or from itself before it was written anew."""
    if clip.kind != "folder":
        status = clip.path.stat()
        return {"source_bytes": status.st_size, "source_time": status.st_mtime_ns}
    # A frame that is overwritten in place leaves the folder's own size and time as they were.
    digest = sha256()
    for file in frame_files(clip.path):
        status = file.stat()
        digest.update(os.fsencode(file.name))  # a name need not be UTF-8
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return {"source_frames": digest.hexdigest()}


class _Clock:
    """Frames a second since the job's first frame began."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def rate(self, frames: int) -> float:
        return frames / max(time.monotonic() - self._started, 1e-6)
