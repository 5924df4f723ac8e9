"""Restored frames to encoded ones, in segments that can be joined without encoding again.

An encoder that runs over a whole clip ties every frame to those before it. Here a new one begins
every :data:`SEGMENT_FRAMES` frames, with a key frame. So segments can be made in any order, by
several processes, before and after a crash, and the joined result is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol, cast

import av
from av import Packet
from av.codec.context import Flags as CodecFlags
from av.video.codeccontext import VideoCodecContext
from torch import Tensor

from dloral.video.colour import BT709, BT2020, FULL, LIMITED, RGB, rgb_to_frame
from dloral.video.encoders import CONTAINERS, Encoder, choose_encoder
from dloral.video.images import encode_image, encode_marked_png
from dloral.video.probe import ClipInfo

SEGMENT_FRAMES = 48
"""Frames from one key frame to the next: what a crash costs at most. Part of what a result is, so
that jobs run whole, resumed or on many machines give the same file (our decision)."""

_FINEST_UNIT = 1_000_000
"""Ticks a second beyond which a source's clock is rounded to MPEG's 90 kHz."""


class CodedFrame(NamedTuple):
    """One encoded frame: a packet of a video, or the bytes of a picture's file.

    Times are in ticks of :func:`time_unit`, 0 at the result's first frame.
    """

    data: bytes
    pts: int
    dts: int
    duration: int
    is_key: bool


class FrameEncoder(Protocol):
    """Encodes the frames of one segment, in order."""

    def encode(self, pixels: Tensor, time: Fraction, duration: Fraction) -> Iterator[CodedFrame]:
        """Take a frame, float (3,H,W) in [0, 1]; ``time`` on the source's clock, in seconds.
        What the encoder gives out meanwhile."""
        ...

    def finish(self) -> Iterator[CodedFrame]:
        """What is left in the encoder; no frame may follow."""
        ...


@dataclass(frozen=True)
class OutputFormat:
    """How a target's picture is encoded. ``suffix``: .mp4 and the like, .png and the like, or
    empty for a folder of PNG frames."""

    suffix: str
    width: int
    height: int
    codec: str = "h264"
    crf: int | None = None
    bit_depth: int = 8

    @property
    def is_video(self) -> bool:
        return self.suffix in CONTAINERS

    @property
    def video_encoder(self) -> Encoder:
        """OptionError where the container cannot hold the codec and the like."""
        return choose_encoder(self.codec, self.suffix, self.bit_depth, self.crf)

    @property
    def pixel_format(self) -> str:
        return self.video_encoder.pixel_format(self.width, self.height, self.bit_depth)

    def new_encoder(self, source: ClipInfo, origin: Fraction) -> FrameEncoder:
        """For one segment; ``origin``, in seconds of the source, becomes 0 of the result."""
        if self.is_video:
            return _VideoEncoder(self, source, origin)
        return _PictureEncoder(self, source, origin)


def time_unit(source: ClipInfo) -> Fraction:
    """A tick in which all of the source's times are whole numbers."""
    ticks = source.time_base.denominator
    return Fraction(1, ticks if ticks <= _FINEST_UNIT else 90_000)


def set_up(context: VideoCodecContext, source: ClipInfo, chosen: OutputFormat) -> None:
    """Size, format, clock, colours and options of a video encoder that is not open yet."""
    encoder, pixel_format = chosen.video_encoder, chosen.pixel_format
    context.width, context.height = chosen.width, chosen.height
    context.pix_fmt = pixel_format
    context.time_base = time_unit(source)
    context.flags |= CodecFlags.frame_duration  # else the last frame's duration is lost
    context.sample_aspect_ratio = source.sample_aspect_ratio
    is_rgb = pixel_format.startswith(("bgr", "gbr"))
    context.colorspace = RGB if is_rgb else _matrix_of(source)
    context.color_range = FULL if is_rgb else LIMITED
    # Primaries and transfer are not converted, so the source's own are said of the result.
    context.color_primaries = source.color_primaries or _matrix_of(source)
    context.color_trc = source.color_transfer or BT709
    options = dict(encoder.options)
    if encoder.default_crf is not None:
        options["crf"] = str(encoder.default_crf if chosen.crf is None else chosen.crf)
    context.options = options
    if encoder.tag and chosen.suffix != ".mkv":
        context.codec_tag = encoder.tag


def _matrix_of(source: ClipInfo) -> int:
    return BT2020 if source.color_space == BT2020 else BT709


class _Clock:
    """Times and durations of frames in ticks; times always grow."""

    def __init__(self, source: ClipInfo, origin: Fraction) -> None:
        self.unit = time_unit(source)
        self._origin = origin
        self._last: int | None = None

    def ticks(self, time: Fraction, duration: Fraction) -> tuple[int, int]:
        pts = round((time - self._origin) / self.unit)
        if self._last is not None:
            pts = max(pts, self._last + 1)
        self._last = pts
        return pts, max(round(Fraction(duration) / self.unit), 1)


class _VideoEncoder:
    def __init__(self, chosen: OutputFormat, source: ClipInfo, origin: Fraction) -> None:
        self._chosen, self._matrix = chosen, _matrix_of(source)
        self._clock = _Clock(source, origin)
        self._durations: dict[int, int] = {}  # of frames inside the encoder, by pts
        context = av.CodecContext.create(chosen.video_encoder.library, "w")
        self._context = cast(VideoCodecContext, context)
        self._context.framerate = source.fps
        # The container's header has the parameter sets, the same for every segment.
        self._context.flags |= CodecFlags.global_header
        set_up(self._context, source, chosen)

    def encode(self, pixels: Tensor, time: Fraction, duration: Fraction) -> Iterator[CodedFrame]:
        expected = (3, self._chosen.height, self._chosen.width)
        assert tuple(pixels.shape) == expected, f"frame of {tuple(pixels.shape)}, not {expected}"
        frame = rgb_to_frame(pixels, self._chosen.pixel_format, self._matrix)
        context = self._context
        frame.colorspace, frame.color_range = context.colorspace, context.color_range
        frame.color_primaries, frame.color_trc = context.color_primaries, context.color_trc
        frame.time_base = self._clock.unit
        frame.pts, frame.duration = self._clock.ticks(time, duration)
        self._durations[frame.pts] = frame.duration
        yield from self._coded(context.encode(frame))

    def finish(self) -> Iterator[CodedFrame]:
        yield from self._coded(self._context.encode(None))

    def _coded(self, packets: Iterable[Packet]) -> Iterator[CodedFrame]:
        for packet in packets:
            pts = packet.pts or 0
            # Encoders give the last packet the length of the one before, or none.
            duration = self._durations.pop(pts, packet.duration or 1)
            dts = pts if packet.dts is None else packet.dts
            yield CodedFrame(bytes(packet), pts, dts, duration, packet.is_keyframe)


class _PictureEncoder:
    """Every frame is a whole file of its own."""

    def __init__(self, chosen: OutputFormat, source: ClipInfo, origin: Fraction) -> None:
        self._chosen = chosen
        self._clock = _Clock(source, origin)

    def encode(self, pixels: Tensor, time: Fraction, duration: Fraction) -> Iterator[CodedFrame]:
        chosen = self._chosen
        if chosen.suffix:
            data = encode_image(pixels, chosen.suffix, chosen.bit_depth)
        else:
            data = encode_marked_png(pixels, chosen.bit_depth)
        pts, length = self._clock.ticks(time, duration)
        yield CodedFrame(data, pts, pts, length, True)

    def finish(self) -> Iterator[CodedFrame]:
        return iter(())
