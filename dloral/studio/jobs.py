"""One restoration for the page: waits its turn, can be watched and stopped, leaves a result.

A job belongs to the visitor and not to the page in a browser, so that a page that is slow, hidden
or loaded anew never holds the restoration up, and finds it again.
"""

import logging
import shutil
import threading
import time
import zipfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dloral.errors import CancelledError, DLoRALError
from dloral.frames.resize import resize_bicubic
from dloral.jobs.journal import JOURNAL, journal_folder
from dloral.studio.estimates import run_seconds
from dloral.studio.face import worded
from dloral.studio.gpu import JOB_SECONDS, kept, on_gpu
from dloral.studio.measures import Measures
from dloral.studio.pictures import png_of, stacked, within
from dloral.studio.records import JobRow, Result, write_result
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.settings import PNG_ZIP, Settings, as_restored, result_path
from dloral.studio.speeds import FIRST_FRAMES, Effort, Forecast, Run, Watch, work_of
from dloral.upscale import Progress, expected_frames, output_size, upscale_steps
from dloral.video.encoders import FOR_VIEWING
from dloral.video.probe import ClipInfo
from dloral.video.reader import Frame, read_frames
from dloral.video.writer import open_writer

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator

VIEWER_SIDE = 2048
"""Pixels: frames of the viewer's clip have no longer side; one that stands still is shown whole."""

STOP = "stop"
"""A file in a job's folder: the job ends with the frames that are done. A file, since the job may
be run in another process (ZeroGPU), or be taken up by the next server."""

STOPPED = "Stopped before a frame was done; nothing was kept."
OUR_MISTAKE = "That went wrong inside the software; its terminal says where. The page goes on."

_log = logging.getLogger(__name__)


def restore(
    clip: ClipInfo,
    folder: Path,
    settings: Settings,
    pipe: "FrameGenerator",
    is_kept: bool = False,
) -> Generator[Progress | Result, None, None]:
    """Restore ``clip`` into ``folder`` with all that the viewer needs; the Result comes last.

    Closing the generator stops the job and leaves no result in the folder. ``is_kept``: then it
    leaves the segments that are done, and the next call goes on from them. A file :data:`STOP` in
    the folder ends it with the frames that are done, as a result that says so.
    """
    height, width = output_size(clip, settings.options)
    file = result_path(folder, clip, settings.format)
    as_zip = settings.format == PNG_ZIP and clip.kind != "image"
    target = folder / "frames" if as_zip else file
    clip = as_restored(clip, settings)
    viewer_file = folder / ("viewer.png" if clip.kind == "image" else "viewer.mp4")
    options = replace(settings.options, resume=is_kept)
    is_resumed = is_kept and (journal_folder(target) / JOURNAL).is_file()
    pairs = _Pairs(viewer_file, clip, settings, (height, width))
    last = Progress("loading")
    with ExitStack() as stack:
        stop = (folder / STOP).exists
        steps = upscale_steps(clip.path, target, options, pipe, settings.scenes, stop=stop)
        stack.enter_context(closing(steps))
        if not is_resumed:
            stack.enter_context(pairs)
        for last in steps:
            if not is_resumed and last.restored_frame is not None and last.lq_frame is not None:
                pairs.add(last.lq_frame, last.restored_frame, last.time, last.duration)
            yield last
    if is_resumed:
        # The frames that were done before are in the result alone.
        told = replace(last, stage="writing")
        with pairs:
            for lq_frame, frame in _read_pairs(clip, target, settings, (height, width)):
                pairs.add(lq_frame, frame.pixels, frame.time, frame.duration)
                yield told
    total = expected_frames(clip, options)
    is_part = (folder / STOP).exists() and total is not None and len(pairs.times) < total
    if as_zip:
        _zip(target, file)
    if pipe.reads_prompts:
        settings = replace(settings, scenes=last.scenes)  # so that the file makes this again
    settings_file = file.with_suffix(".json")
    settings_file.write_bytes(settings.as_file(clip))
    profile_file = folder / "profile.png"
    profile_file.write_bytes(png_of(pairs.measures.profile()))
    result = Result(
        clip=clip,
        settings=settings,
        file=file,
        settings_file=settings_file,
        viewer_file=viewer_file,
        profile_file=profile_file,
        times=tuple(pairs.times),
        durations=tuple(pairs.durations),
        size=(height, width),
        measures=pairs.measures.as_lists(),
        notes=last.notes,
        is_part=is_part,
    )
    if is_kept:
        write_result(result)
    yield result


class _Pairs:
    """What is made of each pair of frames: the viewer's clip, times, measures. To be entered."""

    def __init__(
        self, file: Path, clip: ClipInfo, settings: Settings, size: tuple[int, int]
    ) -> None:
        self.times: list[Fraction] = []
        self.durations: list[Fraction] = []
        self.measures = Measures()
        self._height, self._width = viewer_size(*size, clip.kind == "image")
        self._writing = open_writer(
            file,
            width=self._width,
            height=2 * self._height,
            source=clip,
            codec=FOR_VIEWING,
            start=settings.options.start,
            duration=settings.options.duration,
        )

    def __enter__(self) -> None:
        self._writer = self._writing.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._writing.__exit__(*error)

    def add(self, lq_frame: Tensor, restored: Tensor, time: Fraction, duration: Fraction) -> None:
        self.times.append(time)
        self.durations.append(duration)
        pair = [_shown(frame, self._height, self._width) for frame in (lq_frame, restored)]
        self._writer.write(stacked(*pair), time, duration)
        self.measures.add(lq_frame, restored)


def _read_pairs(
    clip: ClipInfo, result: Path, settings: Settings, size: tuple[int, int]
) -> Iterator[tuple[Tensor, Frame]]:
    """The bicubic enlargement of each source frame, and that frame with the result's pixels."""
    options = settings.options
    with (
        read_frames(clip, options.start, options.duration) as frames,
        read_frames(result) as restored,
    ):
        for frame, finished in zip(frames, restored, strict=False):  # a part has fewer
            lq_frame = resize_bicubic(frame.pixels[None], *size)[0]
            yield lq_frame, frame._replace(pixels=finished.pixels)


@on_gpu(JOB_SECONDS)
def _lent(
    clip: ClipInfo, folder: Path, settings: Settings, model: tuple[str, str], is_kept: bool
) -> Generator[Progress | Result, None, None]:
    """:func:`restore` by a model's key, as ZeroGPU wants it."""
    yield from restore(clip, folder, settings, kept(model), is_kept)


def viewer_size(height: int, width: int, is_image: bool = False) -> tuple[int, int]:
    """Height and width of one half of the viewer's picture; even for a video."""
    ratio = min(1.0, VIEWER_SIDE / max(height, width))
    half = max(1, round(height * ratio)), max(1, round(width * ratio))
    return half if is_image else (max(2, half[0] // 2 * 2), max(2, half[1] // 2 * 2))


def _shown(frame: Tensor, height: int, width: int) -> Tensor:
    """The frame at the viewer's size: smaller, or without the odd last row and column."""
    if max(frame.shape[1:]) > VIEWER_SIDE:
        frame = within(frame, VIEWER_SIDE)
    if frame.shape[1] < height or frame.shape[2] < width:  # of a single row or column
        return resize_bicubic(frame[None], height, width)[0]
    return frame[:, :height, :width]


def _zip(folder: Path, target: Path) -> None:
    """The frames of a folder in one file, which takes their place. PNG is compressed already."""
    part = target.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    part.replace(target)
    shutil.rmtree(folder)


class Job:
    """A queued or running :func:`restore`.

    ``stage``: waiting, loading, looking (for scenes), restoring, writing, done, stopped or failed;
    ``error`` is one line where it failed. ``newest`` is what it said last. ``stop`` and ``cancel``
    return at once; the job ends within a frame.
    """

    def __init__(
        self, clip: ClipInfo, folder: Path, settings: Settings, model: Model, queue: JobQueue
    ) -> None:
        self.clip = clip
        self.folder = folder
        self.settings = settings
        self.stage = "waiting"
        self.newest: Progress | None = None
        self.forecast = Forecast(None, None)
        self.result: Result | None = None
        self.error: Exception | None = None
        self._model = model
        self._queue = queue
        self.row: JobRow | None = None  # where the job is kept for the next server, if it is
        self._is_suspended = False
        self._stopped = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        """Into the queue; InputError if that is full."""
        self._queue.add(self)

    @property
    def before(self) -> int:
        """How many jobs are run before this one."""
        return self._queue.before(self)

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def cancel(self) -> None:
        self._stopped.set()
        if self._queue.remove(self):
            self._end("stopped", CancelledError(STOPPED))

    def stop(self) -> None:
        """End within a frame, and keep the frames that are done as a result; where there are none
        yet, as :meth:`cancel`."""
        newest = self.newest
        if newest is None or newest.frame < 1:
            self.cancel()
        else:
            (self.folder / STOP).touch()

    def suspend(self) -> None:
        """Stop within a frame and leave everything to the next server that starts."""
        self._is_suspended = True
        self.cancel()

    def has_had(self, result: Result | None, error: Exception | None) -> None:
        """It ended before this server started."""
        self.result, self.error = result, error
        self.stage = "failed" if error else "done"
        self._ended.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the job has ended, after at most ``seconds``."""
        return self._ended.wait(seconds)

    def run(self) -> None:
        try:
            self._run()
        except CancelledError as error:
            self._end("stopped", error)
        except DLoRALError as error:
            self._end("failed", error)
        except Exception as error:
            # A mistake of ours: the page says so in one line, the terminal has the traceback.
            _log.exception("a job failed")
            self._end("failed", error)
        else:
            self._end("done", None)

    def _run(self) -> None:
        self.stage = "loading"
        if self.row:
            self.row.begins()
        self._model.pipe()  # waits until it is loaded
        watch = Watch()
        self._foresee()
        with closing(self._steps()) as steps:
            while True:
                self._check()
                with self._model.turns.take():
                    frame_watch = Watch()
                    step = next(steps, None)
                if step is None:
                    return
                if isinstance(step, Result):
                    self.result = step
                    self._remember(step, watch.effort)
                    continue
                if step.stage == "done":
                    continue  # the clip is; what the viewer needs is not yet
                self.stage, self.newest = step.stage, step
                if self.row:
                    self.row.report(step)
                if step.restored_frame is not None:
                    self._model.speeds.paced(frame_watch.effort)
                    self.forecast.frame(step.frame, time.monotonic())

    def _steps(self) -> Generator[Progress | Result, None, None]:
        is_kept = self.row is not None
        return _lent(self.clip, self.folder, self.settings, self._model.key, is_kept)

    def _foresee(self) -> None:
        """How long it will take, before its first frame."""
        options = self.settings.options
        clip = as_restored(self.clip, self.settings)
        frames = 1 if clip.kind == "image" else expected_frames(clip, options)
        size = output_size(clip, options)
        seconds = run_seconds(self._model, options, self.settings.format, size, frames)
        self.forecast = Forecast(frames, seconds)

    def _remember(self, result: Result, effort: Effort) -> None:
        """For the estimates of later runs."""
        options, (height, width) = self.settings.options, result.size
        frames = len(result.times)
        self._model.speeds.add(
            Run(
                options.model,
                options.vae,
                options.window,
                self.settings.format,
                height * width,
                frames,
                effort.seconds,
                work_of(options, result.size) * (frames + FIRST_FRAMES),
                effort.processor,
            )
        )

    def _check(self) -> None:
        if self._stopped.is_set():
            raise CancelledError(STOPPED)

    def _end(self, stage: str, error: Exception | None) -> None:
        self.error = error
        if self.row and not self._is_suspended:
            self._enter(stage, self.row)
        if error is not None:
            self.newest = self.result = None
        if error is not None and not self._is_suspended:
            shutil.rmtree(self.folder, ignore_errors=True)
        if error is None and self.newest is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.stage = stage
        self._ended.set()

    def _enter(self, stage: str, row: JobRow) -> None:
        """Say in the store how it ended."""
        if stage == "done":
            row.done()
        elif stage == "failed":
            row.failed(worded(self.error) if isinstance(self.error, DLoRALError) else OUR_MISTAKE)
        else:
            row.forget()
