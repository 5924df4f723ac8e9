"""Spans to segments: what each worker of a job does, in whatever process it runs."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dloral.errors import OutputError, ResourceError
from dloral.jobs.journal import Gap, Segment
from dloral.jobs.overlap import Behind
from dloral.jobs.progress import Progress
from dloral.jobs.segments import SegmentFile
from dloral.jobs.spans import Job, RestoredFrame, restore_span
from dloral.video.encoding import SEGMENT_FRAMES, FrameEncoder
from dloral.video.media import reason

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator


@dataclass(frozen=True)
class Made:
    """A segment that was just written to ``path``, to be entered in the journal."""

    segment: Segment
    path: Path


class Engine(Protocol):
    """Restores spans outside this process; :mod:`dloral.engines` has some."""

    def run(
        self, job: Job, origin: Fraction, gaps: Sequence[Gap], folder: Path
    ) -> Generator[Made | Progress, None, None]:
        """Every missing segment, in any order, each written to a file that may be moved.

        Progress in between says what workers are doing. Workers may write to ``folder``, the
        journal's, if they share it.
        """
        ...

    def close(self) -> None:
        """No more jobs follow: any processes started for them end."""
        ...


class SegmentWriter:
    """Encodes frames, given in order, into one file per segment.

    ``new_file``: where segment n is written. ``origin``: of the job, in seconds of the source;
    None if the first frame given is the job's first.
    """

    def __init__(
        self, job: Job, new_file: Callable[[int], SegmentFile], origin: Fraction | None = None
    ) -> None:
        self._job, self._new_file = job, new_file
        self.origin = origin
        self._file: SegmentFile | None = None
        self._encoder: FrameEncoder | None = None
        self._number = 0
        self._frames = 0
        self._end = Fraction(0)

    def write(self, restored: RestoredFrame) -> Made | None:
        """Take a frame; the segment that it completes, if any. OutputError if the disk is full."""
        if self.origin is None:
            self.origin = Fraction(restored.frame.time)
        if self._file is None or self._encoder is None:
            self._number = restored.number // SEGMENT_FRAMES
            self._encoder = self._new_encoder(self.origin)
            self._file = self._new_file(self._number)
        time, duration = restored.frame.time, restored.frame.duration
        try:
            self._file.write(self._encoder.encode(restored.with_alpha, time, duration))
        except OSError as error:
            raise self._failed(error) from error
        self._frames += 1
        self._end = time - self.origin + duration
        whole = restored.number % SEGMENT_FRAMES == SEGMENT_FRAMES - 1
        return self.finish() if whole else None

    def _new_encoder(self, origin: Fraction) -> FrameEncoder:
        encoder = self._job.chosen.new_encoder(self._job.clip, origin)
        if encoder.header != self._job.header:
            # Without memory for its threads, x265 silently writes another kind of stream.
            raise ResourceError(
                f"{self._job.chosen.codec} is encoded differently here from where the job began",
                remedy="memory may be short, or the installation different: run the same command "
                "again",
            )
        return encoder

    def finish(self) -> Made | None:
        """No more frames follow; the last segment, if one is under way."""
        if self._file is None or self._encoder is None or self.origin is None:
            return None
        file = self._file
        try:
            file.write(self._encoder.finish())
            file.close()
        except OSError as error:
            raise self._failed(error) from error
        made = Segment(self._number, self._frames, self.origin, self._end, file.bytes, file.sha256)
        self._file = self._encoder = None
        self._frames = 0
        return Made(made, file.path)

    def abandon(self) -> None:
        """Discard what is written of the segment under way."""
        if self._file is not None:
            self._file.abandon()
            self._file = None

    def _failed(self, error: OSError) -> OutputError:
        assert self._file is not None
        return OutputError(
            "{path} cannot be written: {value}",
            remedy="free some space there and run the same command again: progress is kept",
            path=self._file.path.parent,
            value=reason(error),
        )


def restore_gap(
    job: Job,
    gap: Gap,
    pipe: "FrameGenerator",
    on_note: Callable[[str], None] | None = None,
    overlap: bool = False,
) -> Generator[RestoredFrame, None, None]:
    """The frames of the missing segments, in order."""
    first = gap.first * SEGMENT_FRAMES
    last = None if gap.last is None else (gap.last + 1) * SEGMENT_FRAMES - 1
    return restore_span(job.clip, first, last, job.options, pipe, job.scenes, on_note, overlap)


def make_segments(
    job: Job,
    gap: Gap,
    folder: Path,
    mark: str,
    origin: Fraction,
    pipe: "FrameGenerator",
    on_note: Callable[[str], None] | None = None,
) -> Generator[Made, None, None]:
    """Restore the missing segments into files in ``folder``, yielding each once it is safe on disk.

    ``mark``: a word in the files' names that is unique to this worker.
    """

    def new_file(number: int) -> SegmentFile:
        return SegmentFile(folder / f"{number:08d}.segment.{mark}.part")

    writer = SegmentWriter(job, new_file, origin)
    overlap = job.may_overlap(pipe.execution_device, is_alone=False)
    behind = Behind(writer.write, overlap)
    try:
        with closing(restore_gap(job, gap, pipe, on_note, overlap)) as frames:
            for restored in frames:
                yield from behind.put(restored.to_write)
        yield from behind.flush()
        if (made := writer.finish()) is not None:
            yield made
    finally:
        behind.close()
        writer.abandon()
