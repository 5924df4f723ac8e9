"""One restoration for the page: it waits its turn, and can be watched, paused and stopped.

A job belongs to the visitor and not to the page in a browser, so that a slow, hidden or reloaded
page never holds up the restoration, and finds it again.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any

from dloral.devices import empty_caches
from dloral.errors import CancelledError, DLoRALError, InputError
from dloral.jobs.records import DONE, FAILED, PAUSED, JobRecord
from dloral.jobs.spans import expected_frames
from dloral.studio.estimates import run_seconds
from dloral.studio.face import is_full, told
from dloral.studio.gpu import QuotaError, kept, may_be_lent, on_gpu
from dloral.studio.lending import job_seconds
from dloral.studio.records import JobRow, Result, write_result
from dloral.studio.restoration import STOP, has_segments, restore
from dloral.studio.runtime import JobQueue, Model, TakingTurns
from dloral.studio.settings import Settings, as_restored
from dloral.studio.speeds import FIRST_FRAMES, Effort, Forecast, Run, Watch, work_of
from dloral.upscale import Progress
from dloral.video.probe import ClipInfo
from dloral.video.worker import stopped_by

STOPPED = "Stopped before the first frame was finished; nothing was kept."

CANCEL, PAUSE, SUSPEND = "cancel", "pause", "suspend"
"""Why a job ends within a frame: for good; until it is resumed; until the next server starts."""

_log = logging.getLogger(__name__)


@on_gpu(job_seconds)
def _lent(
    clip: ClipInfo, folder: Path, settings: Settings, model: tuple[str, str]
) -> Generator[Progress | Result, None, None]:
    """:func:`restore` by a model's key, as ZeroGPU wants it."""
    yield from restore(clip, folder, settings, kept(model))


class Job:
    """A queued, running or paused :func:`restore`.

    ``stage``: waiting, loading, looking (for scenes), restoring, writing, paused, done, stopped or
    failed; ``error`` is one line where it failed. ``newest`` is its latest progress. ``halt``: why
    it will end within a frame, if it will. ``stop``, ``cancel`` and ``pause`` return at once.
    """

    def __init__(
        self,
        clip: ClipInfo,
        folder: Path,
        settings: Settings,
        model: Model,
        queue: JobQueue,
        without_gpu: Callable[[], Model] | None = None,
    ) -> None:
        self.clip = clip
        self.folder = folder
        self.settings = settings
        self.model = model
        self.stage = "waiting"
        self.halt = ""
        self.newest: Progress | None = None
        self.forecast = Forecast(None, None)
        self.result: Result | None = None
        self.error: Exception | None = None
        self.is_stored = False  # made before anybody came: it goes with its visitor
        self._queue = queue
        self._without_gpu = without_gpu
        self._context = copy_context()  # whose request this is: their quota counts (gpu.py)
        self.row: JobRow | None = None  # where the job is kept for the next server, if it is
        self._lock = threading.RLock()
        self._ended = threading.Event()

    def start(self, is_let_in: bool = False) -> None:
        """Join the queue; InputError if it is full and the job was not admitted before."""
        self._queue.add(self, is_let_in)

    @property
    def before(self) -> int:
        """How many jobs run before this one."""
        return self._queue.before(self)

    @property
    def place(self) -> int:
        """Its place among all jobs, lower first."""
        return self._queue.place(self)

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def is_paused(self) -> bool:
        return self.stage == PAUSED

    @property
    def has_failed(self) -> bool:
        return self.stage == FAILED

    def cancel(self) -> None:
        with self._lock:
            if self.has_ended:
                return
            self.halt = CANCEL
            if self._is_at_rest():
                self._end("stopped", CancelledError(STOPPED))

    def stop(self) -> None:
        """End within a frame, and keep the finished frames as a result; if there are none yet,
        same as :meth:`cancel`. A paused job waits for its turn to write them."""
        with self._lock:
            if self.newest is None or self.newest.frame < 1:
                self.cancel()
            elif not self.has_ended:
                (self.folder / STOP).touch()
                if self.is_paused or self.halt == PAUSE:
                    self.resume(is_let_in=True)

    def pause(self) -> None:
        """End within a frame, keeping the finished segments and the place in the queue until
        :meth:`resume`. InputError where it has ended."""
        with self._lock:
            if self.has_ended:
                raise _not_now(self)
            if self.row:
                self.row.paused(self.newest)
            if self._is_at_rest():
                self._rest()
            else:
                self.halt = PAUSE

    def resume(self, is_let_in: bool = False) -> None:
        """A paused job waits for its turn again and continues from its finished segments.
        InputError where it is not paused, or too many wait, unless ``is_let_in``."""
        with self._lock:
            if self.halt == PAUSE:  # it has not even ended
                self.halt = ""
            elif self.is_paused:
                self._wait_again(is_let_in)
            else:
                raise _not_now(self)
            if self.row:
                self.row.waits(self.settings)

    def change(self, settings: Settings) -> None:
        """Change the settings of a waiting or paused job, which keeps its place; segments made
        with the earlier ones are deleted. InputError where it runs or has ended."""
        with self._lock:
            is_waiting = self._queue.remove(self)
            if not (is_waiting or self.is_paused):
                raise _not_now(self, "pause or cancel it first")
            try:
                self._take(settings)
            finally:
                if is_waiting:
                    self._queue.add(self, is_let_in=True)
            if self.row:
                self.row.changed(self.settings)

    def retry(self, settings: Settings | None, model: Model) -> None:
        """A failed job waits again, behind all others, and continues from its finished segments
        unless it is given other settings. ``model``: instead of one that could not be loaded.
        InputError where it has not failed, or too many wait."""
        with self._lock:
            if not self.has_failed:
                raise _not_now(self)
            if self.model.has_failed:
                self.model = model
            self._queue.leave(self)
            self._context = copy_context()
            self._take(settings or self.settings)
            self.folder.mkdir(exist_ok=True)
            (self.folder / STOP).unlink(missing_ok=True)  # it failed before it had stopped
            self._ended.clear()
            error, self.error, self.halt = self.error, None, ""
            try:
                self._wait_again()
            except InputError:
                self.stage, self.error = FAILED, error
                self._ended.set()
                raise
            if self.row:
                self.row.waits(self.settings, is_last=True)

    def suspend(self) -> None:
        """Stop within a frame and leave everything to the next server that starts."""
        with self._lock:
            if self.has_ended:
                return
            self.halt = SUSPEND
            if self._is_at_rest():
                self._end("stopped", CancelledError(STOPPED))

    def take_up(self, record: JobRecord, result: Result | None) -> None:
        """Restore the job's state from when an earlier server ended; ``result``: of a finished
        one, whether or not that server could record it."""
        if record.frame:
            self.newest = Progress("restoring", record.frame, record.num_frames)
        if result is not None and record.state != DONE and self.row:
            self._enter("done", self.row)
        if result is not None or record.state == FAILED:
            self.result = result
            self.error = None if result else InputError(record.error)
            self.stage = "done" if result else FAILED
            self._ended.set()
            return
        self.folder.mkdir(exist_ok=True)
        if record.state == PAUSED:
            self._queue.reserve(self)
            self.stage = PAUSED
        else:
            self.start(is_let_in=True)

    def settle(self, result: Result) -> None:
        """Mark the job as done, with a result that was not made here."""
        self.result, self.stage, self.is_stored = result, "done", True
        self._ended.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the job has ended, after at most ``seconds``."""
        return self._ended.wait(seconds)

    def _is_at_rest(self) -> bool:
        """Whether it is paused, or waited and now does not."""
        return self._queue.remove(self) or self.is_paused

    def _rest(self) -> None:
        self.halt, self.stage = "", PAUSED
        if self.newest is not None:  # pictures of a job that may rest for days
            self.newest = replace(self.newest, restored_frame=None, lq_frame=None)

    def _wait_again(self, is_let_in: bool = False) -> None:
        before, self.stage = self.stage, "waiting"
        try:
            self._queue.add(self, is_let_in)
        except InputError:
            self.stage = before
            raise

    def _take(self, settings: Settings) -> None:
        """Be run with ``settings`` and the job's model, from the start where they differ."""
        name, vae = self.model.key
        settings = replace(settings, options=replace(settings.options, model=name, vae=vae))
        if settings != self.settings:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            self.settings, self.newest = settings, None

    def run(self) -> None:
        try:
            try:
                self._context.run(self._run)
            except QuotaError as error:
                self._run_without_gpu(error)
        except CancelledError as error:
            self._halted(error)
        except DLoRALError as error:
            self._end("failed", error)
        except Exception as error:
            # A bug of ours: the page says so in one line, the terminal has the traceback.
            if not is_full(error):
                _log.exception("a job failed")
            self._end("failed", error)
        else:
            self._end("done", None)

    def _run(self) -> None:
        self.stage = "loading"
        if self.row:
            self.row.begins()
        self.model.pipe()  # waits until it is loaded
        watch = Watch()
        self._foresee()
        with stopped_by(lambda: bool(self.halt)), closing(self._steps()) as steps:
            while True:
                self._check()
                with self.model.turns.take() if may_be_lent(_lent) else nullcontext():
                    frame_watch = Watch()
                    step = next(steps, None)
                if step is None:
                    return
                if isinstance(step, Result):
                    self.result = step
                    self._remember(step, watch.effort)
                    return  # whoever would pause or cancel it now comes too late
                if step.stage == "done":
                    continue  # the clip is; what the viewer needs is not yet
                if not step.frame and self.newest is not None:  # resumed: what was done still is
                    done = self.newest
                    step = replace(step, frame=done.frame, num_frames=done.num_frames)
                self.stage, self.newest = step.stage, step
                if self.row:
                    self.row.report(step)
                if step.restored_frame is not None:
                    self.model.speeds.paced(frame_watch.effort)
                    self.forecast.frame(step.frame, time.monotonic())

    def _run_without_gpu(self, error: QuotaError) -> None:
        """Run with the compact model, and say so; raises ``error`` where there is no other."""
        if self._without_gpu is None:
            raise error
        self.model = self._without_gpu()
        self._take(self.settings)
        self._run()
        if self.result is not None:
            why = f"{error.value}: restored by the compact model on the CPU instead"
            self.result = replace(self.result, notes=(why, *self.result.notes))
            write_result(self.result)

    def _steps(self) -> Generator[Progress | Result, None, None]:
        if may_be_lent(_lent):
            return _lent(self.clip, self.folder, self.settings, self.model.key)
        pipe: Any = TakingTurns(self.model.pipe(), self.model.turns)
        return restore(self.clip, self.folder, self.settings, pipe)

    def _foresee(self) -> None:
        """How long it will take, before its first frame."""
        clip = as_restored(self.clip, self.settings)
        frames = 1 if clip.kind == "image" else expected_frames(clip, self.settings.options)
        self.forecast = Forecast(frames, run_seconds(self.clip, self.settings, self.model))

    def _remember(self, result: Result, effort: Effort) -> None:
        """Record it for the estimates of later runs. Of a resumed run only the remainder was seen,
        which says nothing about the next."""
        if not self.forecast.is_of_all:
            effort = Effort(0, 0)
        options, (height, width) = self.settings.options, result.size
        frames = len(result.times)
        self.model.speeds.add(
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
        if self.halt:
            raise CancelledError(STOPPED)

    def _halted(self, error: CancelledError) -> None:
        with self._lock:
            if self.halt == PAUSE:
                self._rest()
            elif self.halt:
                self._end("stopped", error)
            else:  # resumed before it was paused
                self._wait_again(is_let_in=True)

    def _end(self, stage: str, error: Exception | None) -> None:
        with self._lock:
            is_suspended = self.halt == SUSPEND and stage == "stopped"
            self.error, self.halt = error, ""
            if self.row and not is_suspended:
                self._enter(stage, self.row)
            if error is not None:
                self.newest = self.result = None
            if error is not None and not is_suspended and not self._can_be_retried(stage):
                shutil.rmtree(self.folder, ignore_errors=True)
            if error is None and self.newest is not None:
                empty_caches()
            self.stage = stage
            self._ended.set()

    def _can_be_retried(self, stage: str) -> bool:
        return stage == FAILED and has_segments(self.folder)

    def _enter(self, stage: str, row: JobRow) -> None:
        """Say in the store how it ended. Where that cannot be written, as on a full disk, the next
        server finds the job as it was before, and its result or its segments in its folder."""
        if stage == "done":
            row.done()
        elif stage == "failed":
            row.failed(told(self.error) if self.error else "")
        else:
            row.forget()


def _not_now(job: Job, remedy: str = "reload the list") -> InputError:
    is_running = job.stage not in ("waiting", PAUSED) and not job.has_ended
    state = "is running" if is_running else f"is {job.stage}"
    return InputError(f"{{name}} {state}", remedy=remedy, name=job.clip.path.name)
