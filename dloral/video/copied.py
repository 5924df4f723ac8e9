"""Packets of sound and subtitles that are copied as they are, cut and shifted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import av
from av import Packet
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Stream

from dloral.video.headers import SoundHeader, adts_length, sound_header
from dloral.video.labels import label

_PREROLL = Fraction(1, 10)
"""Seconds of sound kept before a cut, hidden by an MP4 edit list: decoders need pre-roll."""

LOST_TIME = 10
"""Seconds: sound this long after everything else has ended has a damaged time."""


@dataclass(frozen=True)
class Cut:
    """The part of the source that is written, in seconds on the source's own clock.

    ``origin`` becomes time 0; ``end`` is None if everything to the end is kept. ``whole``: the
    part begins with the source's first frame. ``last``: when the picture ends.
    """

    origin: Fraction
    end: Fraction | None
    whole: bool
    last: Fraction | None = None

    def is_lost(self, begin: Fraction, before: Fraction | None) -> bool:
        """Whether a packet that begins at ``begin`` of the result, after one that ended at
        ``before``, must have a damaged time."""
        end = self.span
        return end is not None and begin > max(end, before or end) + LOST_TIME

    @property
    def span(self) -> Fraction | None:
        """Seconds of the result that have a picture, where that is known."""
        return None if self.last is None else self.last - self.origin


class Track(Protocol):
    """Turns one source stream's packets into packets of the output, cut and shifted.

    ``lost``: packets that were damaged or repeated, and were left out.
    """

    lost: int

    def take(self, packet: Packet, cut: Cut) -> Iterator[Packet]: ...

    def until(self, seconds: Fraction) -> Iterator[Packet]:
        """What was held back and begins up to ``seconds`` of the result."""
        return iter(())

    def rest(self, cut: Cut) -> Iterator[Packet]:
        return iter(())


class Copied(Track):
    """A stream whose packets are copied as they are, except sound that cannot be decoded.

    MP4 and MOV hide what lies before time 0 with an edit list. Matroska would move the picture
    instead, so there such packets are left out, except those that its codec delay hides.
    """

    def __init__(self, stream: Stream, output: OutputContainer, hides_run_up: bool) -> None:
        self._stream = output.add_stream_from_template(stream)
        self._hides_run_up = hides_run_up
        self._has_codec_delay = stream.container.format.name == "matroska,webm"
        self._sparse = stream.type == "subtitle"
        self._sound = stream if isinstance(stream, AudioStream) else None
        self._is_heard = False  # the decoder is there, and took a packet
        self._codec = stream.codec_context.codec.canonical_name
        self._header: SoundHeader | None = None
        self._last: int | None = None  # of the packets written
        self._end: Fraction | None = None
        self.lost = 0
        label(self._stream, stream)

    def take(self, packet: Packet, cut: Cut) -> Iterator[Packet]:
        unit = Fraction(packet.time_base)
        shift = round(cut.origin / unit)
        shown = packet.dts if packet.pts is None else packet.pts
        assert shown is not None, "packets without any time are left out before"
        begin = shown - shift
        length = packet.duration or 0
        if self._sparse:
            yield from self._clipped(packet, begin, begin + length, cut, unit)
            return
        if begin < 0 and not self._is_run_up(packet, (begin + length) * unit, cut):
            return
        dts = begin if packet.dts is None else packet.dts - shift
        again = self._last is not None and dts <= self._last
        if (
            again
            or not self._is_whole(packet)
            or not self._can_be_heard(packet)
            or cut.is_lost(begin * unit, self._end)
        ):
            self.lost += 1
            return
        self._last, self._end = dts, (begin + length) * unit
        packet.dts, packet.pts = dts, max(begin, dts)
        packet.stream = self._stream
        yield packet

    def _is_whole(self, packet: Packet) -> bool:
        """Broadcast AAC: its header is converted to the container's own, so it must be correct."""
        start = bytes(memoryview(packet)[:8])
        if self._codec != "aac" or self._stream.codec_context.extradata:
            return True
        header = sound_header("aac", start)
        if self._header is None:
            self._header = header
        return header is not None and header == self._header and adts_length(start) == packet.size

    def _can_be_heard(self, packet: Packet) -> bool:
        """Whether sound can be decoded; the cost is negligible next to the picture's."""
        if self._sound is None:
            return True
        try:
            self._sound.decode(packet)
        except av.PatchWelcomeError:  # the decoder's own limit
            return True
        except av.FFmpegError:  # AC-3's decoder has error codes of its own
            return not self._is_heard
        self._is_heard = True
        return True

    def _is_run_up(self, packet: Packet, end: Fraction, cut: Cut) -> bool:
        """Whether a packet that begins before time 0 and ends at ``end`` is to be kept."""
        if self._hides_run_up:
            return cut.whole or end > -_PREROLL
        return cut.whole and self._has_codec_delay and (packet.pts or 0) < 0

    def _clipped(
        self, packet: Packet, begin: int, end: int, cut: Cut, unit: Fraction
    ) -> Iterator[Packet]:
        if cut.end is not None:
            end = min(end, round((cut.end - cut.origin) / unit))
        begin = max(begin, 0)
        if end > begin or not packet.duration:
            packet.pts = packet.dts = begin
            packet.duration = max(end - begin, 0)
            packet.stream = self._stream
            yield packet
