"""The whole job, file to file: read, enlarge, restore, write, and report progress.

:func:`upscale_steps` is a generator: each value is a :class:`Progress` that any face can show, and
closing it cancels the job within a frame. :func:`upscale_video` runs it to the end. A long job
keeps its finished segments beside the target (:mod:`dloral.jobs.journal`), so that the same call
resumes from there after a crash.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from dloral.errors import DLoRALError, InputError, OutputError, Setting, Terminated
from dloral.jobs.admission import admitted_size, open_source, opening_notes, settled
from dloral.jobs.journal import JOURNAL, Gap, Journal, journal_folder
from dloral.jobs.loading import load_steps
from dloral.jobs.locks import lock_target
from dloral.jobs.overlap import Behind
from dloral.jobs.progress import Clock, Progress, kept_parts_message
from dloral.jobs.running import Engine, Made, SegmentWriter, restore_gap
from dloral.jobs.segments import read_segment
from dloral.jobs.spans import Job, RestoredFrame, expected_frames, first_time, identity_of
from dloral.options import UpscaleOptions
from dloral.prompts import Scene, as_lists, find_scenes
from dloral.stages import WRITE, stage
from dloral.video.encoding import header_of
from dloral.video.pipes import STANDARD_OUTPUT, is_pipe
from dloral.video.probe import ClipInfo
from dloral.video.seeking import count_frames
from dloral.video.treatment import chosen_depth, target_suffix, treated
from dloral.video.writer import Writer, open_writer

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator

Stop = Callable[[], bool] | None

LONG_JOB_SECONDS = 120
"""Jobs that are estimated longer keep their finished segments without being asked."""

__all__ = ["Progress", "upscale_steps", "upscale_video"]


def upscale_video(
    source: str | Path,
    target: str | Path,
    options: UpscaleOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    pipe: "FrameGenerator | None" = None,
    scenes: Sequence[Scene] | None = None,
    engine: Engine | None = None,
) -> Path:
    """Restore a clip, image or folder of frames, write it to ``target`` and return that path.

    ``-`` is standard input or output. ``pipe``: a loaded pipeline instead of ``options.model``.
    ``scenes``: prompts to use instead of asking the tagger (:func:`dloral.prompts.find_scenes`
    gives some to edit). ``engine``: what restores, None for this process. Raises
    :class:`dloral.DLoRALError` with one line for anything the caller can fix.
    """
    for progress in upscale_steps(source, target, options, pipe, scenes, engine):
        if on_progress is not None:
            on_progress(progress)
    return Path(target)


def upscale_steps(
    source: ClipInfo | str | Path,
    target: str | Path,
    options: UpscaleOptions | None = None,
    pipe: "FrameGenerator | None" = None,
    scenes: Sequence[Scene] | None = None,
    engine: Engine | None = None,
    stop: Stop = None,
    overlap: bool | None = None,
) -> Generator[Progress, None, None]:
    """The job as a generator; see :func:`upscale_video`. ``stop``: polled after each frame that is
    restored in this process; once it says so, the frames done so far become the result.
    ``overlap``: read and write frames while others are restored, if there is memory for it;
    None: only where it also pays off (:mod:`dloral.jobs.overlap`)."""
    options = settled(options or UpscaleOptions(), source, target, engine is not None)
    suffix = target_suffix(target)
    clip = treated(open_source(source, options), options, suffix)
    notes = opening_notes(clip, options, suffix)
    height, width = admitted_size(clip, options)
    writing = open_writer(
        target,
        width=width,
        height=height,
        source=clip,
        codec=options.codec,
        crf=options.crf,
        bit_depth=chosen_depth(clip, options, suffix),
        chroma=options.chroma,
        preset=options.preset,
        encoder_options=options.encoder_options,
        audio=options.audio,
        keep_names=options.keep_names,
        start=options.start,
        duration=options.duration,
        pipe_format=options.pipe_format,
    )
    run = _Run(clip, options, STANDARD_OUTPUT if is_pipe(target) else Path(target), notes)
    with lock_target(target):
        with run.keeping():
            with writing as writer:
                yield from run.prepare(writer, pipe, scenes, engine)
                yield from run.restore(stop, overlap) if engine is None else run.restore_by(engine)
                yield from run.join()
            yield run.written()
        yield run.done()


class _Run:
    """One running job. :func:`upscale_steps` shows its steps in order."""

    _writer: Writer
    _job: Job
    _pipe: "FrameGenerator"
    _behind: Behind[RestoredFrame, None]

    def __init__(
        self, clip: ClipInfo, options: UpscaleOptions, target: Path, notes: list[str]
    ) -> None:
        self._clip, self._options, self._target = clip, options, target
        self._total = expected_frames(clip, options)
        self._asked = options.resume is True
        self._journal: Journal | None = None
        self._notes = notes
        self._frames = 0  # done, in this run or before
        self._before = 0  # done before this run
        self._clock = Clock()
        self._segments: SegmentWriter | None = None
        self._held: list[RestoredFrame] = []  # until it is known whether the job is long
        self._held_since: list[float] = []
        self._is_decided = options.resume is False

    # Before the first frame ------------------------------------------------------------------

    def prepare(
        self,
        writer: Writer,
        pipe: "FrameGenerator | None",
        scenes: Sequence[Scene] | None,
        engine: Engine | None,
    ) -> Generator[Progress, None, None]:
        """Journal, weights, scenes: everything needed to restore the first frame."""
        options, self._writer = self._options, writer
        header = header_of(self._clip, writer.chosen)
        self._identity = identity_of(self._clip, options, writer.chosen, header)
        if scenes:
            self._identity["scenes"] = as_lists(scenes)
        exists = (journal_folder(self._target) / JOURNAL).is_file()
        if self._asked or engine is not None or (exists and options.resume):
            self._open_journal()
        if not scenes and self._journal and self._journal.extra:
            scenes = [Scene(Fraction(start), prompt) for start, prompt in self._journal.extra]
        resumed = self._journal.resumed if self._journal else ""
        if pipe is None and (engine is None or not scenes):
            pipe = yield from load_steps(options, resumed, self._total)
        else:
            yield Progress("loading", num_frames=self._total, message=resumed)
        if not scenes:
            assert pipe is not None
            scenes = []
            for scene in find_scenes(self._clip, options, pipe):
                scenes.append(scene)
                if scene.prompt == options.prompt:
                    continue  # nobody was asked
                yield Progress("looking", num_frames=self._total, scenes=tuple(scenes))
        if engine is None:
            assert pipe is not None
            self._pipe = pipe
        self._job = Job(self._clip, options, tuple(scenes), writer.chosen, header)
        if self._journal:
            self._journal.remember(as_lists(scenes))

    def _open_journal(self) -> None:
        self._journal = Journal(self._target, self._identity)
        self._before = self._frames = self._journal.frames
        if self._journal.total is not None:
            self._total = self._journal.total

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Decide what remains of the journal if the job ends before its result is written."""
        try:
            yield
        except OutputError as error:
            if self._let_go(keep=True) or error.path == journal_folder(self._target):
                raise
            raise OutputError(
                "{value}",
                remedy="progress is kept in {path}; the same command resumes from there",
                value=error,
                path=journal_folder(self._target),
            ) from error
        except (GeneratorExit, KeyboardInterrupt) as stop:
            self._let_go(keep=self._asked or isinstance(stop, Terminated))
            raise
        except BaseException:
            self._let_go(keep=True)
            raise

    def _let_go(self, keep: bool) -> bool:
        """Whether nothing is kept. A journal without segments is useless."""
        if self._segments is not None:
            self._segments.abandon()
        if self._journal is not None and not (keep and self._journal.segments):
            self._journal.remove()
            self._journal = None
        return self._journal is None

    # Restoring -------------------------------------------------------------------------------

    def restore(self, stop: Stop, overlap: bool | None) -> Generator[Progress, None, None]:
        """Restore every missing frame, in this process, in order, until told to stop."""
        self._clock = Clock()
        if self._journal:
            self._keep_segments()
        overlap = self._job.may_overlap(self._pipe.execution_device, overlap)
        # Frames for a pipe are written here: a thread could not be ended while its reader sleeps.
        self._behind = Behind(self._write, overlap and self._target != STANDARD_OUTPUT)
        try:
            yield from self._restore_gaps(stop, overlap)
        finally:
            self._behind.close(keep=self._segments is not None)
        self._end()

    def _restore_gaps(self, stop: Stop, overlap: bool) -> Generator[Progress, None, None]:
        gaps = self._journal.gaps() if self._journal else [Gap(0, None)]
        is_stopped = False
        for gap in gaps:
            restoring = restore_gap(self._job, gap, self._pipe, self._notes.append, overlap)
            with closing(restoring) as frames:
                for restored in frames:
                    self._frames += 1
                    yield self._progress(restored, self._take(restored))
                    if is_stopped := stop is not None and stop():
                        break
            if not self._is_decided:
                self._release()
            self._behind.flush()
            if self._segments:
                self._enter(self._segments.finish())
            if is_stopped:
                self._leave_the_rest(restored.number + 1)
                break

    def restore_by(self, engine: Engine) -> Generator[Progress, None, None]:
        """Restore every missing segment with the engine's workers, in any order."""
        clip, options = self._clip, self._options
        assert self._journal is not None
        origin = first_time(clip, options)
        if origin is not None and self._journal.total is None:
            self._total = count_frames(clip, options.start, options.duration)
        self._clock = Clock()
        gaps = self._journal.gaps(self._total)
        if origin is not None and gaps:
            running = engine.run(self._job, origin, gaps, self._journal.folder)
            with closing(running):
                for told in running:
                    if isinstance(told, Made):
                        self._frames += told.segment.frames
                        self._enter(told)
                        yield self._progress()
                    else:
                        yield told
        self._end()

    def _take(self, restored: RestoredFrame) -> str:
        """Pass a frame on to its destination; returns a line if that was decided just now."""
        if self._segments or self._is_decided:
            self._behind.put(restored.to_write)
            return ""
        self._held.append(restored.to_write)
        self._held_since.append(self._clock.seconds)
        return self._decide() if len(self._held) >= 2 * self._options.batch_size else ""

    def _write(self, restored: RestoredFrame) -> None:
        """Called by the writer thread."""
        with stage(WRITE):
            if self._segments:
                self._enter(self._segments.write(restored))
            else:
                shown = restored.frame
                self._writer.write(restored.with_alpha, shown.time, shown.duration)

    def _decide(self) -> str:
        """Keep segments if the second batch's time shows the job to be long, and say so."""
        batch = self._options.batch_size
        seconds = (self._held_since[-1] - self._held_since[batch - 1]) / batch
        left = float("inf") if self._total is None else seconds * (self._total - self._frames)
        message = ""
        if self._options.resume and left > LONG_JOB_SECONDS and self._try_to_keep():
            message = kept_parts_message(left, journal_folder(self._target))
        self._release()
        return message

    def _try_to_keep(self) -> bool:
        """Nobody asked for a journal, so if none can be made the job runs without one."""
        try:
            self._open_journal()
        except DLoRALError:
            return False
        assert self._journal is not None
        self._frames += len(self._held)
        self._journal.remember(as_lists(self._job.scenes))
        self._keep_segments()
        return True

    def _keep_segments(self) -> None:
        journal = self._journal
        assert journal is not None
        origin = next((segment.origin for segment in journal.segments.values()), None)
        self._segments = SegmentWriter(self._job, journal.new_file, origin)

    def _release(self) -> None:
        """Send the held frames where all frames go from now on."""
        self._is_decided = True
        for restored in self._held:
            self._take(restored)
        self._held.clear()

    def _enter(self, made: Made | None) -> None:
        if made is not None:
            assert self._journal is not None
            self._journal.add(made.segment, made.path)

    def _end(self) -> None:
        """The end of the source was reached. InputError if there was no frame at all."""
        if not self._frames:
            raise InputError(
                "{path} has no frame from {value:g} s on",
                remedy="change {start} or {duration}",
                path=self._clip.path,
                value=self._options.start,
                start=Setting("start"),
                duration=Setting("duration"),
            )
        self._total = self._frames
        if self._journal and self._journal.total is None:
            self._journal.end(self._frames)

    def _leave_the_rest(self, frames: int) -> None:
        """The job was stopped after ``frames`` frames: they become the result, and it says so."""
        self._frames = frames if self._journal is None else self._journal.cut_short(frames)
        if self._frames != self._total:
            of = "" if self._total is None else f" of {self._total}"
            self._notes.append(f"stopped early: a partial result, {self._frames}{of} frames")
            self._writer.cut_short()

    def _progress(self, restored: RestoredFrame | None = None, message: str = "") -> Progress:
        kept = self._journal.folder if self._journal else None
        rate = self._clock.rate(self._frames - self._before)
        told = Progress("restoring", self._frames, self._total, rate, message=message, kept=kept)
        if restored is None:
            return told
        return replace(
            told,
            restored_frame=restored.seen(restored.pixels),
            lq_frame=restored.seen(restored.lq_frame),
            time=restored.frame.time,
            duration=restored.frame.duration,
        )

    # After the last frame --------------------------------------------------------------------

    def join(self) -> Generator[Progress, None, None]:
        """Copy the kept segments into the target, packet by packet."""
        told = replace(self._progress(), stage="writing")
        yield told
        if self._journal is None:
            return
        for number, segment in sorted(self._journal.segments.items()):
            coded = read_segment(self._journal.file(number))
            self._writer.write_coded(coded, segment.origin, segment.end)
            if number % 16 == 15:
                yield told  # so that the job can be cancelled while it writes

    def written(self) -> Progress:
        """The result is in place. Kept segments stay until the next step is requested, since what
        the caller does with the result may fail."""
        return replace(
            self._progress(),
            stage="writing",
            target=self._target,
            notes=tuple(dict.fromkeys([*self._notes, *self._writer.notes])),
            scenes=self._job.scenes,
        )

    def done(self) -> Progress:
        """Nothing can fail any more: delete what was kept."""
        told = self.written()
        left_over = self._journal.remove() if self._journal else []
        return replace(told, stage="done", notes=(*told.notes, *left_over), kept=None)
