"""Reading from a given frame number on, without decoding everything before it.

When each frame is shown is known from the packets' timestamps, which are read without decoding. The
reader then begins at the last key frame before that time. If the frame it arrives at has another
time than the packets said, the clip is read from its start and its frames counted instead.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

from dloral.video import worker
from dloral.video.filters import FIELD, FILM
from dloral.video.media import can_seek, open_media, picture_stream, seconds, version_of
from dloral.video.probe import ClipInfo
from dloral.video.reader import Frame, read_frames, read_isolated


def frame_times(clip: ClipInfo) -> Sequence[Fraction] | None:
    """When each frame of the clip is shown, in seconds from the first, in order. None where the
    container has no index to jump by, or its clock jumps. Eight bytes a frame."""
    if clip.clock.jumps:
        return None
    if clip.kind == "pages":
        return clip.page_times
    if clip.deinterlace == FILM:  # which frames remain is known only once they are decoded
        return None
    if clip.kind != "video":
        return [index / clip.fps for index in range(clip.num_frames or 0)]
    found = _ticks_of(clip.path, version_of(clip.path))
    if found is None:
        return None
    ticks, unit = found
    times = _Ticks(ticks, Fraction(unit or clip.time_base), clip.start_time)
    return _FieldTimes(times, clip.duration) if clip.deinterlace == FIELD else times


@lru_cache(maxsize=1)
def _ticks_of(
    path: Path, version: tuple[int, int, int] | None
) -> tuple[array[int], Fraction | None] | None:
    """When the frames of a file are shown, sorted, and their unit in seconds; None if it cannot be
    seeked.

    That takes reading the whole file, and a worker seeks to the start of a span hundreds of times
    in a film, so the last file's are kept. ``version``: distinguishes it from a rewritten one.
    """
    with open_media(path) as container:
        stream = picture_stream(container, path)
        if not can_seek(container):
            return None
        ticks = array("q")
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard and packet.pts is not None:
                ticks.append(packet.pts)
        return array("q", sorted(ticks)), stream.time_base


class _FieldTimes(Sequence[Fraction]):
    """Twice as many times: those of both fields of each frame."""

    def __init__(self, frames: Sequence[Fraction], duration: Fraction | None) -> None:
        self._frames, self._duration = frames, duration

    def __len__(self) -> int:
        return 2 * len(self._frames)

    def __getitem__(self, index: int) -> Fraction:  # type: ignore[override]  # no slices
        frame, field = divmod(index, 2)
        time = self._frames[frame]
        if not field:
            return time
        is_last = frame == len(self._frames) - 1
        end = (self._duration or time) if is_last else self._frames[frame + 1]
        return time + (end - time) / 2


class _Ticks(Sequence[Fraction]):
    """Times as whole numbers of a unit."""

    def __init__(self, ticks: array[int], unit: Fraction, start: Fraction) -> None:
        self._ticks, self._unit, self._start = ticks, unit, start

    def __len__(self) -> int:
        return len(self._ticks)

    def __getitem__(self, index: int) -> Fraction:  # type: ignore[override]  # no slices
        return self._ticks[index] * self._unit - self._start


@contextmanager
def read_frames_from(
    clip: ClipInfo,
    number: int,
    start: Fraction | float = 0,
    duration: Fraction | float | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[Iterator[Frame]]:
    """:func:`read_frames` of the same part, without its first ``number`` frames.

    The frames are the same as there, but ``index`` counts from 0 here. Nothing is yielded if the
    part has no more than ``number`` frames.
    """
    if clip.isolated:
        skipped = seconds(start) + number / clip.fps
        asked = (number, start, duration)
        with read_isolated("read_frames_from", clip, asked, skipped, on_note) as received:
            yield received
        return
    with ExitStack() as stack:
        time = _time_of(clip, number, seconds(start)) if number else None
        if time is not None:
            left = None if duration is None else seconds(start) + seconds(duration) - time
            frames = stack.enter_context(read_frames(clip, time, left, on_note))
            first = next(frames, None)
            if first is not None and first.time == time:
                yield chain([first], frames)
                return
        frames = stack.enter_context(read_frames(clip, start, duration, on_note))
        yield islice(frames, number, None)


def count_frames(
    clip: ClipInfo, start: Fraction | float = 0, duration: Fraction | float | None = None
) -> int | None:
    """How many frames the part has, by its packets; None if they do not tell."""
    if clip.isolated:
        own = replace(clip, path=clip.path.absolute(), isolated=False)
        memory, wait = worker.memory_to_probe(clip.path), worker.seconds_to_probe(clip.path)
        task = worker.Task("count_frames", clip.path, (own, start, duration), {}, memory, wait)
        return worker.call(task)  # type: ignore[no-any-return]
    times = frame_times(clip)
    if times is None:
        return None
    first = _first_from(times, seconds(start))
    if duration is None:
        return len(times) - first
    return _first_from(times, seconds(start) + seconds(duration)) - first


def _time_of(clip: ClipInfo, number: int, start: Fraction) -> Fraction | None:
    """When frame ``number`` of the part from ``start`` on is shown; None if that is not known."""
    times = frame_times(clip)
    if times is None:
        return None
    index = _first_from(times, start) + number
    return times[index] if index < len(times) else None


def _first_from(times: Sequence[Fraction], start: Fraction) -> int:
    return bisect_left(times, start)
