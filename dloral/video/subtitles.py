"""Text subtitles decoded to lines and encoded for another container."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple, cast

import av
from av import Packet
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

from dloral.video.copied import Cut, Track
from dloral.video.labels import label

_MS = Fraction(1, 1000)
_USUAL_TICKS, _MOST_TICKS = 48_000, 192_000
_OVERRIDES = re.compile(rb"\{[^}]*\}")


def mov_text_unit(picture: Fraction, sounds: Iterable[AudioStream]) -> Fraction:
    """The unit for subtitles of an MP4 or MOV whose picture has the unit ``picture``, in seconds.

    FFmpeg's muxer compares the end of a line with the times of other tracks by the number of ticks,
    and would end it too early if theirs were finer. But a time without lines must fit into 31 bits.
    """
    ticks = max(_USUAL_TICKS, picture.denominator, *(sound.sample_rate for sound in sounds))
    return Fraction(1, min(math.ceil(ticks * _MS) * 1000, _MOST_TICKS))


class _Line(NamedTuple):
    """``begin``, ``end``: milliseconds of the result; ``ass``: an event of ASS, eight fields and
    the text."""

    begin: int
    end: int
    ass: bytes

    @property
    def text(self) -> bytes:
        return self.ass.split(b",", 8)[-1]


class NewSubtitles(Track):
    """Lines that are shown at the same time are samples of their own in Matroska. In MP4 and MOV
    samples follow one another, so there each holds all lines of its time, the earliest on top.
    """

    def __init__(self, stream: SubtitleStream, output: OutputContainer, library: str) -> None:
        self._source = stream
        self._stream = cast(SubtitleStream, output.add_stream(library))
        self._one_at_a_time = library == "mov_text"
        self._stream.time_base = _MS
        stream.codec_context.open(strict=False)
        self._stream.codec_context.subtitle_header = stream.codec_context.subtitle_header
        self._lines: list[_Line] = []  # that have not ended, where samples follow one another
        self._written = -1  # milliseconds: up to when they are written
        self.lost = 0
        label(self._stream, stream)

    def take(self, packet: Packet, cut: Cut) -> Iterator[Packet]:
        if not packet.size or packet.pts is None:
            return
        unit = Fraction(packet.time_base)
        begin = packet.pts * unit - cut.origin
        end = begin + (packet.duration or 0) * unit
        if cut.end is not None:
            end = min(end, cut.end - cut.origin)
        first, last = round(max(begin, Fraction(0)) / _MS), round(end / _MS)
        try:
            rects = self._source.decode(packet)
        except av.FFmpegError:
            self.lost += 1
            return
        lines = [_Line(first, last, rect.ass) for rect in rects if isinstance(rect, AssSubtitle)]
        if not lines or last <= first:
            return
        if not self._one_at_a_time:
            yield from self._sample(first, last, lines)
            return
        # One that comes late in the file shows what is left of it.
        first = max(first, self._written + 1)
        self._lines += [line._replace(begin=first) for line in lines if first < last]

    def until(self, seconds: Fraction) -> Iterator[Packet]:
        return self._changes(round(seconds / _MS))

    def rest(self, cut: Cut) -> Iterator[Packet]:
        if cut.end is not None:
            end = round((cut.end - cut.origin) / _MS)
            kept = [line._replace(end=min(line.end, end)) for line in self._lines]
            self._lines = [line for line in kept if line.begin < line.end]
        return self._changes(max((line.end for line in self._lines), default=0))

    def _changes(self, until: int) -> Iterator[Packet]:
        """A sample for each time up to ``until`` at which other lines are shown than before. The
        muxer itself adds an empty one after a line that no other follows."""
        for now in sorted(time for time in self._times() if self._written < time <= until):
            self._written = now
            self._lines = [line for line in self._lines if line.end > now]
            shown = [line for line in self._lines if line.begin <= now]
            if shown:
                end = min(time for time in self._times() if time > now)
                yield from self._sample(now, end, shown)

    def _times(self) -> set[int]:
        return {time for line in self._lines for time in (line.begin, line.end)}

    def _sample(self, begin: int, end: int, lines: list[_Line]) -> Iterator[Packet]:
        text = SubtitleSet.create(text=_together(lines), start=0, end=end - begin)
        try:
            made = self._stream.codec_context.encode_subtitle(text)
        except av.FFmpegError:
            self.lost += 1
            return
        made.time_base = _MS
        made.pts = made.dts = begin
        made.duration = end - begin
        made.stream = self._stream
        yield made


def _together(lines: list[_Line]) -> bytes:
    """One event of them all, each line's own style ended before the next; signs that are drawn
    several times (glow, edge, letters) are there once."""
    first, *others = {_OVERRIDES.sub(b"", line.text): line for line in lines}.values()
    return first.ass + b"".join(rb"{\r}\N" + line.text for line in others)
