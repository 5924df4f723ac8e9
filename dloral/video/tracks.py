"""Sound and subtitles of the source, carried over beside the restored picture.

Packets are copied where the container can hold their codec; else sound is encoded anew and text
subtitles are converted. They are read from the source in step with the picture, so that no more of
them is held than the encoder's own delay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol, cast

import av
import numpy as np
from av import AudioFrame, AudioResampler, Packet
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Stream
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

from dloral.errors import InputError
from dloral.video.media import open_media, reason
from dloral.video.probe import ClipInfo

_PCM = {f"pcm_{kind}" for kind in ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le")}
_SOUND = {
    ".mp4": {"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac"},
    ".mov": {"aac", "mp3", "mp2", "ac3", "eac3", "alac"} | _PCM,
    ".webm": {"opus", "vorbis"},
    ".mkv": {"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac", "vorbis", "dts", "truehd"}
    | _PCM,
}
"""What each container is known to hold and players to find there."""

_SUBTITLES = {
    ".mp4": {"mov_text"},
    ".mov": {"mov_text"},
    ".webm": {"webvtt"},
    ".mkv": {"subrip", "ass", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"},
}
_NEW_SOUND = {".mp4": "aac", ".mov": "aac", ".mkv": "aac", ".webm": "libopus"}
_NEW_SUBTITLES = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "subrip", ".webm": "webvtt"}
_TEXT_SUBTITLES = {"mov_text", "subrip", "ass", "webvtt", "text"}

_KEPT_TAGS = {"title", "artist", "album", "date", "comment", "description", "copyright"}
_AAC_RATES = (44100, 48000, 32000, 24000, 22050, 16000, 11025, 12000, 8000)
_OPUS_RATE = 48000
_BITS_PER_CHANNEL = 96_000
_PREROLL = Fraction(1, 10)
"""Seconds of sound kept before a cut, hidden by an MP4 edit list: decoders need a run-up."""

_GAP = Fraction(1, 10)
"""Seconds without sound that are filled with silence when it is encoded anew."""


@dataclass(frozen=True)
class Cut:
    """The part of the source that is written, in seconds on the source's own clock.

    ``origin`` becomes time 0; ``end`` is None where everything to the end is kept. ``whole``: the
    part begins with the source's first frame.
    """

    origin: Fraction
    end: Fraction | None
    whole: bool


class _Track(Protocol):
    """Turns one source stream's packets into packets of the output, cut and shifted."""

    def take(self, packet: Packet, cut: Cut) -> Iterator[Packet]: ...

    def rest(self, cut: Cut) -> Iterator[Packet]: ...


class Tracks:
    """All streams of ``clip`` but the picture, added to ``output``. Use it in a ``with`` block."""

    def __init__(
        self, clip: ClipInfo, output: OutputContainer, suffix: str, notes: list[str]
    ) -> None:
        self._clip = clip
        self._output = output
        self._cut: Cut | None = None
        self._tracks: dict[int, _Track] = {}
        self._next: Packet | None = None
        self._stack = ExitStack()
        if clip.kind != "video":
            self._packets: Iterator[Packet] = iter(())
            return
        container = self._stack.enter_context(open_media(clip.path))
        kept = {name: container.metadata[name] for name in _KEPT_TAGS & container.metadata.keys()}
        output.metadata.update(kept)
        streams: list[Stream] = [*container.streams.audio, *container.streams.subtitles]
        for stream in streams:
            track = _make_track(stream, output, suffix, notes)
            if track is not None:
                self._tracks[stream.index] = track
        chosen = [stream for stream in streams if stream.index in self._tracks]
        self._packets = container.demux(*chosen) if chosen else iter(())

    def __enter__(self) -> Tracks:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def begin(self, origin: Fraction, end: Fraction | None) -> None:
        """Say which part is written: ``origin``, ``end`` in seconds from the first frame."""
        start = self._clip.start_time
        last = None if end is None else start + end
        self._cut = Cut(start + origin, last, whole=origin == 0)

    def mux_until(self, seconds: Fraction | None) -> None:
        """Write all packets up to ``seconds`` of the result (None: all that are left)."""
        cut = self._cut
        assert cut is not None, "begin() comes first"
        while (packet := self._peek()) is not None:
            time = _packet_time(packet)
            if time is not None and seconds is not None and time - cut.origin > seconds:
                return
            self._next = None
            if time is None or (cut.end is not None and time >= cut.end):
                continue
            self._output.mux(list(self._tracks[packet.stream_index].take(packet, cut)))

    def finish(self, seconds: Fraction) -> None:
        """Write the rest. A part that was cut out ends no sooner than its last frame does,
        at ``seconds`` of the result."""
        cut = self._cut
        assert cut is not None, "begin() comes first"
        if cut.end is not None:
            cut = self._cut = replace(cut, end=max(cut.end, cut.origin + seconds))
        self.mux_until(None)
        for track in self._tracks.values():
            self._output.mux(list(track.rest(cut)))

    def _peek(self) -> Packet | None:
        if self._next is None:
            try:
                self._next = next(self._packets, None)
            except av.FFmpegError as error:
                raise InputError(
                    f"{self._clip.path}: its sound cannot be read ({reason(error)})"
                ) from error
        return self._next


def _packet_time(packet: Packet) -> Fraction | None:
    ticks = packet.pts if packet.dts is None else packet.dts
    return None if ticks is None else ticks * Fraction(packet.time_base)


def _make_track(
    stream: Stream, output: OutputContainer, suffix: str, notes: list[str]
) -> _Track | None:
    name = stream.codec_context.codec.canonical_name if stream.codec_context else None
    what = "sound" if stream.type == "audio" else "subtitles"
    if name is None:
        notes.append(f"{what} of an unknown codec left out")
        return None
    holds = (_SOUND if stream.type == "audio" else _SUBTITLES)[suffix]
    if name in holds:
        return _Copied(stream, output, hides_run_up=suffix in (".mp4", ".mov"))
    if isinstance(stream, AudioStream):
        track = _NewSound(stream, output, _NEW_SOUND[suffix])
        notes.append(f"sound encoded anew as {track.codec}: {suffix} cannot hold {name}")
        return track
    if isinstance(stream, SubtitleStream) and name in _TEXT_SUBTITLES:
        new = _NEW_SUBTITLES[suffix]
        notes.append(f"subtitles converted to {new}: {suffix} cannot hold {name}")
        return _NewSubtitles(stream, output, new)
    notes.append(f"subtitles left out: {suffix} cannot hold {name}")
    return None


def _label(target: Stream, source: Stream) -> None:
    """Language, title and the default and forced marks."""
    for key in ("language", "title"):
        if key in source.metadata:
            target.metadata[key] = source.metadata[key]
    target.disposition = source.disposition


class _Copied:
    """A stream whose packets go over as they are.

    MP4 and MOV hide what lies before time 0 by an edit list. Matroska would move the picture
    instead, so there such packets are left out, but for those that its own codec delay hides.
    """

    def __init__(self, stream: Stream, output: OutputContainer, hides_run_up: bool) -> None:
        self._stream = output.add_stream_from_template(stream)
        self._hides_run_up = hides_run_up
        self._has_codec_delay = stream.container.format.name == "matroska,webm"
        self._sparse = stream.type == "subtitle"
        _label(self._stream, stream)

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
        packet.dts = begin if packet.dts is None else packet.dts - shift
        packet.pts = begin
        packet.stream = self._stream
        yield packet

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

    def rest(self, cut: Cut) -> Iterator[Packet]:
        return iter(())


class _NewSound:
    """Sound decoded, cut to the sample, and encoded again."""

    def __init__(self, stream: AudioStream, output: OutputContainer, library: str) -> None:
        self._source = stream
        context = stream.codec_context
        rate = context.sample_rate
        if library == "libopus":
            rate = _OPUS_RATE
        elif rate not in _AAC_RATES:
            rate = 48000
        self._rate = rate
        self._stream = cast(AudioStream, output.add_stream(library, rate=rate))
        layout = {1: "mono", 6: "5.1"}.get(context.channels, "stereo")
        self._stream.codec_context.layout = layout
        self._stream.codec_context.bit_rate = (
            _BITS_PER_CHANNEL * self._stream.codec_context.channels
        )
        self.codec = self._stream.codec_context.codec.canonical_name
        self._resampler = AudioResampler(format="fltp", layout=layout, rate=rate)
        self._position: int | None = None  # the next sample of the result
        _label(self._stream, stream)

    def take(self, packet: Packet, cut: Cut) -> Iterator[Packet]:
        if not packet.size:
            return
        try:
            frames = self._source.decode(packet)
        except av.InvalidDataError:
            return  # as players do: a damaged packet becomes silence
        for frame in frames:
            for even in self._resampler.resample(frame):
                yield from self._encode(even, cut)

    def rest(self, cut: Cut) -> Iterator[Packet]:
        for frame in self._source.decode(None):
            for even in self._resampler.resample(frame):
                yield from self._encode(even, cut)
        for even in self._resampler.resample(None):
            yield from self._encode(even, cut)
        if self._position is not None:
            yield from self._stream.encode(None)

    def _encode(self, frame: AudioFrame, cut: Cut) -> Iterator[Packet]:
        if frame.pts is None:
            at = self._position or 0
        else:
            at = round((frame.pts * Fraction(frame.time_base or 1) - cut.origin) * self._rate)
        samples = frame.to_ndarray()
        if self._position is not None and abs(at - self._position) < _GAP * self._rate:
            at = self._position
        skipped = max((self._position or 0) - at, 0)
        samples, at = samples[:, skipped:], at + skipped
        if cut.end is not None:
            samples = samples[:, : max(0, round((cut.end - cut.origin) * self._rate) - at)]
        if not samples.shape[1]:
            return
        while self._position is not None and at > self._position:
            silence = np.zeros((len(samples), min(at - self._position, self._rate)), np.float32)
            yield from self._put(silence, self._position)
        yield from self._put(samples, at)

    def _put(self, samples: np.ndarray, at: int) -> Iterator[Packet]:
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), "fltp", self._stream.codec_context.layout.name
        )
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = at
        self._position = at + samples.shape[1]
        yield from self._stream.encode(frame)


class _NewSubtitles:
    """Text subtitles decoded to lines and encoded for another container."""

    def __init__(self, stream: SubtitleStream, output: OutputContainer, library: str) -> None:
        self._source = stream
        self._stream = cast(SubtitleStream, output.add_stream(library))
        self._stream.time_base = Fraction(1, 1000)
        stream.codec_context.open(strict=False)
        self._stream.codec_context.subtitle_header = stream.codec_context.subtitle_header
        _label(self._stream, stream)

    def take(self, packet: Packet, cut: Cut) -> Iterator[Packet]:
        if not packet.size or packet.pts is None:
            return
        unit = Fraction(packet.time_base)
        begin = packet.pts * unit - cut.origin
        end = begin + (packet.duration or 0) * unit
        if cut.end is not None:
            end = min(end, cut.end - cut.origin)
        begin = max(begin, Fraction(0))
        lines = [rect.ass for rect in self._source.decode(packet) if isinstance(rect, AssSubtitle)]
        if not lines or end <= begin:
            return
        length = round((end - begin) * 1000)
        text = SubtitleSet.create(text=lines[0], start=0, end=length)
        made = self._stream.codec_context.encode_subtitle(text)
        made.time_base = Fraction(1, 1000)
        made.pts = made.dts = round(begin * 1000)
        made.duration = length
        made.stream = self._stream
        yield made

    def rest(self, cut: Cut) -> Iterator[Packet]:
        return iter(())
