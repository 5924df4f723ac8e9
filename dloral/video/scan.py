"""A first pass through a video's packets, without decoding: its frames, its clock, its changes.

A gigabyte takes about a second, so what would end a job after hours is known before it starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av import CodecContext, Packet
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from dloral.video.clock import NO_JUMPS, Clock, ClockFinder
from dloral.video.headers import SOUND_HEADER, picture_header, sound_header
from dloral.video.media import (
    has_times,
    has_timestamps,
    open_media,
    picture_stream,
    repeats_frames,
)

_MOST_CHANGES = 100
"""Key frames that are decoded to see whether their size differs."""

_HIDDEN_BEFORE_0 = {"mov", "matroska"}
"""Containers that give an encoder's run-up, which is not to be heard, a time below 0."""

_PROMISES_LENGTH = {"matroska"}
"""Containers that say how long they are, and are read up to wherever they break."""


class SizeChange(NamedTuple):
    """From ``time`` (seconds from the first frame) on, frames are stored with another size or
    pixel shape; ``width`` and ``height`` as stored."""

    time: Fraction
    width: int
    height: int
    aspect: Fraction


@dataclass
class Scan:
    """What the packets say. Times in seconds on the file's one clock (``clock``).

    ``first``, ``last``: when the first and the last frame are shown; ``end``: until when (the
    same as ``last`` where that is not said). ``timed``: whether there are times at all.
    ``sound_first``: when the first sound is heard. ``changing_sound``: streams, by index, whose
    rate or channels change. ``changes``: of the picture. ``missing``: seconds that the file claims
    to have but that cannot be read, if it says so. ``steady``: the ticks that each frame is shown,
    0 where they differ.
    """

    num_frames: int = 0
    first: Fraction = Fraction(0)
    last: Fraction = Fraction(0)
    end: Fraction = Fraction(0)
    timed: bool = False
    clock: Clock = NO_JUMPS
    sound_first: Fraction | None = None
    changing_sound: tuple[int, ...] = ()
    changes: tuple[SizeChange, ...] = ()
    missing: Fraction = Fraction(0)
    steady: int = 0


@dataclass
class _Span:
    """Ticks of the picture in one epoch of the clock."""

    first: int
    last: int
    end: int

    def add(self, ticks: int, duration: int) -> None:
        self.first = min(self.first, ticks)
        self.last = max(self.last, ticks)
        self.end = max(self.end, ticks + duration)


def scan_video(path: Path) -> Scan:
    """Go through all packets of ``path``; raises InputError if they cannot be read."""
    with open_media(path) as container:
        stream = picture_stream(container, path)
        finder = ClockFinder(container, stream)
        sounds = {s.index: _Sound(s) for s in container.streams.audio if s.codec_context}
        sizes = _Sizes(stream)
        spans: dict[int, _Span] = {}
        lengths: set[int] = set()
        result = Scan()
        read = Fraction(0)
        unit = Fraction(stream.time_base or 1)
        for packet in _walked(container, stream, finder):
            epoch = finder.add(packet)
            read = max(read, _end_of(packet))
            if packet.stream_index in sounds:
                sounds[packet.stream_index].add(packet, epoch)
            if packet.stream_index != stream.index or not _is_shown(stream, packet):
                continue
            length = packet.duration or 0
            lengths.add(length)
            result.num_frames += 1
            ticks = _ticks(container, packet)
            if ticks is not None:
                spans.setdefault(epoch, _Span(ticks, ticks, ticks)).add(ticks, length)
            if packet.is_keyframe and packet.size:
                sizes.look(packet, epoch, ticks)
        if _promises_length(container) and container.duration:
            result.missing = max(Fraction(container.duration, av.time_base) - read, Fraction(0))
        result.clock = finder.finish()
        result.steady = lengths.pop() if len(lengths) == 1 else 0
        _place(result, spans, finder.shifts, unit)
        origin = result.first
        result.changes = tuple(
            SizeChange(finder.shifts[epoch] + ticks * unit - origin, width, height, aspect)
            for epoch, ticks, width, height, aspect in sizes.found
        )
        heard = [
            at for at in (s.begin(container, finder) for s in sounds.values()) if at is not None
        ]
        result.sound_first = min(heard, default=None)
        result.changing_sound = tuple(i for i, sound in sounds.items() if sound.changes)
    return result


def _walked(container: InputContainer, picture: Stream, finder: ClockFinder) -> Iterator[Packet]:
    """Non-empty packets of every stream whose times are of use."""
    kinds = ("video", "audio", "subtitle") if finder.watches else ("audio",)
    wanted = [
        stream
        for stream in container.streams
        if stream.index == picture.index or (stream.type in kinds and stream.codec_context)
    ]
    if _promises_length(container):  # the promise is kept by whatever lasts longest
        wanted = [stream for stream in container.streams if stream.type != "attachment"]
    repeats = repeats_frames(picture)
    for packet in container.demux(*wanted):
        again = repeats and packet.stream_index == picture.index and packet.pts is not None
        if (packet.size or again) and not packet.is_discard:
            yield packet


def _promises_length(container: InputContainer) -> bool:
    return bool(_PROMISES_LENGTH & set(container.format.name.split(",")))


def _end_of(packet: Packet) -> Fraction:
    if packet.pts is None:
        return Fraction(0)
    return (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base)


def _is_shown(stream: VideoStream, packet: Packet) -> bool:
    # RFC 6386, 9.1: show_frame
    return stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & 0x10)


def _ticks(container: InputContainer, packet: Packet) -> int | None:
    if not has_times(container):
        return None
    if not has_timestamps(container) or packet.pts is None:
        return packet.dts
    return packet.pts


def _place(scan: Scan, spans: dict[int, _Span], shifts: list[Fraction], unit: Fraction) -> None:
    """Put the epochs' ticks on the one clock."""
    if not spans:
        return
    scan.timed = True
    placed = [
        [span_ticks * unit + shifts[epoch] for span_ticks in (span.first, span.last, span.end)]
        for epoch, span in spans.items()
    ]
    firsts, lasts, ends = zip(*placed, strict=True)
    scan.first, scan.last = min(firsts), max(lasts)
    scan.end = max(scan.last, *ends)


class _Sound:
    """The start and changes of one sound stream."""

    def __init__(self, stream: Stream) -> None:
        self._codec = stream.codec_context.codec.canonical_name
        self._unit = Fraction(stream.time_base or 1)
        self._first: tuple[int, int] | None = None  # epoch, ticks
        self._header: object = None
        self._others = 0  # consecutive packets that say something else
        self.changes = False

    def add(self, packet: Packet, epoch: int) -> None:
        if self._first is None and packet.pts is not None:
            self._first = epoch, packet.pts
        if packet.has_sidedata("new_extradata") and self._header is not None:
            self.changes = True
        header = sound_header(self._codec, bytes(memoryview(packet)[:SOUND_HEADER]))
        if header is None or self.changes:
            return
        if self._header is None:
            self._header = header
        self._others = self._others + 1 if header != self._header else 0
        self.changes = self._others > 1  # a single one is a damaged packet

    def begin(self, container: InputContainer, finder: ClockFinder) -> Fraction | None:
        if self._first is None:
            return None
        epoch, ticks = self._first
        if _HIDDEN_BEFORE_0 & set(container.format.name.split(",")):
            ticks = max(ticks, 0)
        return ticks * self._unit + finder.shifts[epoch]


class _Sizes:
    """Looks for key frames whose size differs from the first one's."""

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._codec = stream.codec_context.codec.canonical_name
        self._header: bytes | None = None
        self._first_packet = b""
        self._looks = 0
        self._now: tuple[int, int, Fraction] | None = None
        self.found: list[tuple[int, int, int, int, Fraction]] = []  # epoch, ticks, w, h, aspect

    def look(self, packet: Packet, epoch: int, ticks: int | None) -> None:
        header = picture_header(self._codec, packet)
        if header is None or header == self._header:
            return
        is_first, self._header = self._header is None, header
        self._looks += 1
        if self._looks > _MOST_CHANGES:
            return
        if is_first:
            self._first_packet = bytes(packet)
            return
        if self._now is None:
            self._now = self._decoded(self._first_packet, None)
        size = self._decoded(bytes(packet), packet)
        if size is not None and size != self._now:
            self.found.append((epoch, ticks or 0, *size))
            self._now = size

    def _decoded(self, data: bytes, packet: Packet | None) -> tuple[int, int, Fraction] | None:
        context = CodecContext.create(self._stream.codec_context.name, "r")
        extradata = self._stream.codec_context.extradata
        if packet is not None and packet.has_sidedata("new_extradata"):
            extradata = bytes(packet.get_sidedata("new_extradata"))
        if extradata:
            context.extradata = extradata
        try:
            frames = [*context.decode(Packet(data)), *context.decode(None)]  # type: ignore[attr-defined]
        except av.FFmpegError:
            return None
        if not frames:
            return None
        return frames[0].width, frames[0].height, Fraction(context.sample_aspect_ratio or 1)  # type: ignore[attr-defined]
