"""Sound that is decoded, cut to the sample, and re-encoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np
from av import AudioFrame, AudioResampler, CodecContext, Packet
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import OutputContainer

from dloral.video.copied import LOST_TIME, Cut, Track
from dloral.video.labels import label

_AAC_RATES = (
    *(44100, 48000, 32000, 24000, 22050, 16000, 11025, 12000, 8000),
    *(96000, 88200, 64000, 7350),
)
_FORMAT = "flt"
"""Interleaved: PyAV 18 reads past the end of a planar frame of eight channels."""

_OPUS_RATE = 48000
_BITS_PER_CHANNEL = 96_000
_GAP = Fraction(1, 10)
"""Seconds without sound that are filled with silence."""

_MOST_SILENCE = 2_000_000_000
"""Samples of all channels together, six hours of stereo, which take a minute or two to encode: a
file of a few kilobytes can name times that are weeks apart."""

_SAME_SPEAKERS = {"5.1(side)": "5.1", "5.0(side)": "5.0", "quad(side)": "quad"}
"""Layouts that differ only in name -> those that every player knows."""

_BY_COUNT = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_FALLBACKS = {"2.1": "3.0", "4.0": "quad"}
"""What an encoder without these layouts can hold without losing a channel."""

_UNNAMED = {("aac", "6.1")}
"""Read back, such sound is seven unnamed channels; 7.1 has room for them all."""


class SoundFormat(NamedTuple):
    """What sound becomes; ``is_mixed``: channels have to be mixed for ``layout``."""

    codec: str
    rate: int
    layout: str
    is_mixed: bool


def new_sound(stream: AudioStream, library: str) -> SoundFormat:
    """The format that FFmpeg's encoder ``library`` has for a source's sound."""
    context = stream.codec_context
    rate = context.sample_rate
    if library == "libopus":
        rate = _OPUS_RATE
    elif rate not in _AAC_RATES:
        rate = 96000 if rate > 96000 else 48000
    layout = _layout(library, context, rate)
    is_mixed = av.AudioLayout(layout).nb_channels < context.channels
    return SoundFormat(av.Codec(library, "w").canonical_name, rate, layout, is_mixed)


class NewSound(Track):
    """A track of re-encoded sound, in :func:`new_sound`'s format."""

    def __init__(self, stream: AudioStream, output: OutputContainer, library: str) -> None:
        self._source = stream
        _, self._rate, self._layout, _ = new_sound(stream, library)
        self._stream = cast(AudioStream, output.add_stream(library, rate=self._rate))
        self._stream.codec_context.layout = self._layout
        self._stream.codec_context.bit_rate = (
            _BITS_PER_CHANNEL * self._stream.codec_context.channels
        )
        self._resampler: AudioResampler | None = None
        self._input: tuple[str, str, int] | None = None  # what the resampler is set up for
        self._position: int | None = None  # the next sample of the result
        self._silence = 0  # samples of it, so far
        self.lost = 0
        label(self._stream, stream)

    def take(self, packet: Packet, cut: Cut) -> Iterator[Packet]:
        if not packet.size:
            return
        try:
            frames = self._source.decode(packet)
        except av.FFmpegError:
            self.lost += 1  # as players do: a damaged packet becomes silence
            return
        for frame in frames:
            yield from self._encode_all(self._resampled(frame), cut)

    def rest(self, cut: Cut) -> Iterator[Packet]:
        try:
            frames = self._source.decode(None)
        except av.FFmpegError:
            frames = []
        for frame in frames:
            yield from self._encode_all(self._resampled(frame), cut)
        yield from self._encode_all(self._flushed(), cut)
        if self._position is not None:
            yield from self._stream.encode(None)

    def _resampled(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        """The frame at the result's rate and layout; its own may change in mid-stream."""
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        if found != self._input:
            yield from self._flushed()
            self._resampler = AudioResampler(format=_FORMAT, layout=self._layout, rate=self._rate)
            self._input = found
        assert self._resampler is not None
        try:
            yield from self._resampler.resample(frame)
        except (av.FFmpegError, ValueError):
            self.lost += 1
            self._input = None  # whatever it holds cannot be trusted
            self._resampler = None

    def _flushed(self) -> Iterator[AudioFrame]:
        if self._resampler is not None:
            yield from self._resampler.resample(None)

    def _encode_all(self, frames: Iterator[AudioFrame], cut: Cut) -> Iterator[Packet]:
        for frame in frames:
            yield from self._encode(frame, cut)

    def _encode(self, frame: AudioFrame, cut: Cut) -> Iterator[Packet]:
        if frame.pts is None:
            at = self._position or 0
        else:
            at = round((frame.pts * Fraction(frame.time_base or 1) - cut.origin) * self._rate)
        before = None if self._position is None else Fraction(self._position, self._rate)
        if cut.is_lost(Fraction(at, self._rate), before):
            self.lost += 1
            return
        samples = frame.to_ndarray().reshape(frame.samples, -1)
        if self._position is not None and abs(at - self._position) < _GAP * self._rate:
            at = self._position
        skipped = max((self._position or 0) - at, 0)
        samples, at = samples[skipped:], at + skipped
        if cut.end is not None:
            samples = samples[: max(0, round((cut.end - cut.origin) * self._rate) - at)]
        if not len(samples):
            return
        gap = 0 if self._position is None else max(at - self._position, 0)
        if self._silence + gap > self._most_silence(cut):
            self.lost += 1
            return
        self._silence += gap
        while self._position is not None and at > self._position:
            length = min(at - self._position, self._rate)
            silence = np.zeros((length, samples.shape[1]), np.float32)
            yield from self._put(silence, self._position)
        yield from self._put(samples, at)

    def _most_silence(self, cut: Cut) -> int:
        """Samples that may be made in all: the picture's length and a little more."""
        most = _MOST_SILENCE // self._stream.codec_context.channels
        if (span := cut.span) is None:
            return most
        return min(most, round((max(span, Fraction(0)) + LOST_TIME) * self._rate))

    def _put(self, samples: np.ndarray, at: int) -> Iterator[Packet]:
        """``samples``: (samples, channels)."""
        layout = self._stream.codec_context.layout.name
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples).reshape(1, -1), _FORMAT, layout
        )
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = at
        self._position = at + len(samples)
        yield from self._stream.encode(frame)


def _layout(library: str, context: AudioCodecContext, rate: int) -> str:
    """The source's channels if the encoder has them, else the most that it has."""
    own = _SAME_SPEAKERS.get(context.layout.name, context.layout.name)
    count = context.channels
    if (library, own) in _UNNAMED:
        own = "7.1"
    choices = [own, _FALLBACKS.get(own), *(_BY_COUNT.get(n) for n in range(count, 0, -1))]
    for layout in choices:
        if layout is not None and _opens(library, layout, rate):
            return layout
    return "stereo"


def _opens(library: str, layout: str, rate: int) -> bool:
    context = cast(AudioCodecContext, CodecContext.create(library, "w"))
    try:
        context.sample_rate, context.layout = rate, layout
        context.format = "fltp" if library == "aac" else "flt"
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True
