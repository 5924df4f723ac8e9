"""Restored frames to encoded ones, in segments that can be joined without re-encoding.

An encoder that runs over a whole clip ties every frame to those before it. Here a new one starts
every :data:`SEGMENT_FRAMES` frames, with a key frame. So segments can be made in any order, by
several processes, before and after a crash, and the joined result is bit-identical.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from typing import NamedTuple, Protocol, cast

import av
import torch
import torch.nn.functional as F
from av import Packet
from av.codec.context import Flags as CodecFlags
from av.video.codeccontext import VideoCodecContext
from torch import Tensor

from dloral.errors import OptionError, Setting
from dloral.video.colour import BT709, BT2020, FULL, LIMITED, RGB, rgb_to_frame
from dloral.video.encoders import (
    CONTAINERS,
    FOR_VIEWING,
    LONG_H265,
    Encoder,
    add_option,
    check_choices,
    choose_encoder,
    encoder_options,
    mastering_options,
)
from dloral.video.filters import FIELD
from dloral.video.hdr import from_restorable
from dloral.video.picture_files import PictureFormat, encode_picture, marked
from dloral.video.probe import ClipInfo

SEGMENT_FRAMES = 48
"""Frames from one key frame to the next: the most that a crash costs. It is fixed, so that jobs run
whole, resumed or on many machines give the same file (our decision)."""

_SMALL = 128
"""Pixels a side below which x265's cutree writes beyond its arrays. Where a row or column is one
coding unit of 64, it also reads uninitialised memory, so that two runs differ (found with
MALLOC_PERTURB_); with units of 16 that remains only for sides of exactly 16.

x264's mbtree is as bad there: the same 48 frames of 96 x 64 were encoded differently 8 times in
144, and never without mbtree, or without its assembly. Larger pictures were not measured."""

_ROWS_A_THREAD = {"libx264": 128, "libx265": 256}
"""These encoders' decisions depend on the number of threads, so it follows from the picture's
height and not from the machine's cores: every machine makes the same file (our decision)."""

_MOST_THREADS = 16

_SLICED = 4
"""Pixels a side from which FFV1 can be cut into slices."""

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
    alpha: bytes = b""  # VP9: the stream of transparency beside it


class FrameEncoder(Protocol):
    """Encodes the frames of one segment, in order. ``header``: a hash of its stream header's
    content; only segments with the same one can be joined."""

    header: str

    def encode(self, pixels: Tensor, time: Fraction, duration: Fraction) -> Iterator[CodedFrame]:
        """Take a frame, float (3,H,W) in [0, 1], with alpha (4,H,W); ``time`` on the source's
        clock, in seconds. Yields what the encoder has ready."""
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
    chroma: str = "auto"
    preset: str | None = None
    options: tuple[str, ...] = ()
    alpha: bool = False

    @property
    def is_video(self) -> bool:
        return self.suffix in CONTAINERS

    @property
    def video_encoder(self) -> Encoder:
        """OptionError if, for example, the container cannot hold the codec."""
        return choose_encoder(self.codec, self.suffix, self.bit_depth, self.crf)

    def check(self) -> None:
        """OptionError, before the work, for what the encoder cannot do."""
        encoder, (width, height) = self.video_encoder, self.coded_size
        check_choices(self.codec, width, height, self.bit_depth, self.chroma, self.preset)
        options = encoder_options(encoder, self.crf, self.preset, self.options)
        if self.options or encoder.is_hardware:  # cards differ in the sizes that they take
            self._try(encoder, options)

    def _try(self, encoder: Encoder, options: dict[str, str]) -> None:
        """OptionError if the encoder does not start: because of the user's own options, or, on a
        graphics card, of the size."""
        context = cast(VideoCodecContext, av.CodecContext.create(encoder.library, "w"))
        context.width, context.height = self.coded_size
        context.pix_fmt, context.time_base = self.pixel_format, Fraction(1, 25)
        context.options = options
        try:
            context.open()
        except (av.FFmpegError, ValueError) as error:
            size = f"{self.width}x{self.height}"
            own = self.options
            raise OptionError(
                "{option} is {value!r}" if own else "{codec} does not start with frames of {size}",
                remedy="{library} does not start with that: give other values"
                if own
                else "choose a smaller {scale} or another codec",
                library=encoder.library,
                codec=self.codec,
                size=size,
                scale=Setting("scale"),
                option=Setting("encoder_option"),
                value=", ".join(own),
            ) from error

    @property
    def pixel_format(self) -> str:
        width, height = self.coded_size
        return self.video_encoder.pixel_format(
            width, height, self.bit_depth, self.chroma, self.alpha
        )

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height as written: padded if the encoder needs more."""
        encoder = self.video_encoder
        long, least = encoder.narrow
        if max(self.width, self.height) <= long:
            least = encoder.least
        return max(self.width, least), max(self.height, least)

    def new_encoder(self, source: ClipInfo, origin: Fraction) -> FrameEncoder:
        """For one segment; ``origin``, in seconds of the source, becomes 0 of the result."""
        if self.is_video:
            return _VideoEncoder(self, source, origin)
        return _PictureEncoder(self, source, origin)


def header_of(source: ClipInfo, chosen: OutputFormat) -> str:
    """The :attr:`FrameEncoder.header` that all segments of one result must have."""
    return chosen.new_encoder(source, Fraction(0)).header


def time_unit(source: ClipInfo) -> Fraction:
    """A tick in which all of the source's times are whole numbers."""
    ticks = source.time_base.denominator * (2 if source.deinterlace == FIELD else 1)
    return Fraction(1, ticks if ticks <= _FINEST_UNIT else 90_000)


def set_up(context: VideoCodecContext, source: ClipInfo, chosen: OutputFormat) -> None:
    """Size, format, clock, colours and options of a video encoder that is not open yet."""
    encoder, pixel_format = chosen.video_encoder, chosen.pixel_format
    context.width, context.height = chosen.coded_size
    context.pix_fmt = pixel_format
    context.time_base = time_unit(source)
    context.flags |= CodecFlags.frame_duration  # else the last frame's duration is lost
    context.sample_aspect_ratio = source.sample_aspect_ratio
    is_rgb = pixel_format.startswith(("bgr", "gbr"))
    context.colorspace = RGB if is_rgb else _matrix_of(source)
    context.color_range = FULL if is_rgb else LIMITED
    # Primaries and transfer are not converted, so the result is tagged with the source's own.
    context.color_primaries = source.written_primaries or _matrix_of(source)
    context.color_trc = source.written_transfer or BT709
    context.options = _options(source, chosen)
    if rows := _ROWS_A_THREAD.get(encoder.library):
        context.thread_count = max(1, min(_MOST_THREADS, chosen.coded_size[1] // rows))
    if encoder.tag and chosen.suffix != ".mkv":
        context.codec_tag = encoder.tag


def _options(source: ClipInfo, chosen: OutputFormat) -> dict[str, str]:
    encoder = chosen.video_encoder
    if chosen.codec == FOR_VIEWING:
        return encoder_options(encoder, chosen.crf, None, ())
    options = encoder_options(encoder, chosen.crf, chosen.preset, chosen.options)
    if min(chosen.coded_size) < _SMALL:
        if encoder.library == "libx265":
            units = 16 if max(chosen.coded_size) <= LONG_H265 else 32
            add_option(options, "x265-params", f"no-cutree=1:ctu={units}")
        if encoder.library == "libx264":
            add_option(options, "x264-params", "mbtree=0")
    if encoder.library == "libx264" and (packing := source.marks.x264_packing()) is not None:
        add_option(options, "x264-params", f"frame-packing={packing}")
    sides = chosen.coded_size
    if encoder.library == "ffv1" and min(sides) < _SLICED and max(sides) <= encoder.narrow[0]:
        options["slices"] = "1"
    if chosen.alpha and encoder.library == "prores_ks":
        options |= {"profile": "4444", "alpha_bits": "16"}
    if chosen.alpha and encoder.library == "libvpx-vp9":
        options["auto-alt-ref"] = "0"  # libvpx cannot do it with transparency
    if source.keeps_hdr and source.mastering:
        told = mastering_options(encoder.library, source.mastering)
        if told:
            add_option(options, *told)
    return options


def _matrix_of(source: ClipInfo) -> int:
    is_wide = source.color_space == BT2020 and source.hdr != "sdr"
    return BT2020 if is_wide else BT709


class _Clock:
    """Times and durations of frames in ticks; times always increase."""

    def __init__(self, source: ClipInfo, origin: Fraction) -> None:
        self.unit = time_unit(source)
        self._origin = origin
        self._last: int | None = None

    def ticks(self, time: Fraction, duration: Fraction) -> tuple[int, int]:
        pts = round((time - self._origin) / self.unit)
        # Not the duration rounded: as many ticks too long as there are frames would add up.
        end = round((time + Fraction(duration) - self._origin) / self.unit)
        if self._last is not None:
            pts = max(pts, self._last + 1)
        self._last = pts
        return pts, max(end - pts, 1)


class _VideoEncoder:
    def __init__(self, chosen: OutputFormat, source: ClipInfo, origin: Fraction) -> None:
        self._chosen, self._source, self._matrix = chosen, source, _matrix_of(source)
        self._clock = _Clock(source, origin)
        self._durations: dict[int, int] = {}  # of frames inside the encoder, by pts
        os.environ.setdefault("SVT_LOG", "1")  # else SVT-AV1 prints its settings
        context = av.CodecContext.create(chosen.video_encoder.library, "w")
        self._context = cast(VideoCodecContext, context)
        self._context.framerate = source.fps
        # The container's header has the parameter sets, the same for every segment.
        self._context.flags |= CodecFlags.global_header
        set_up(self._context, source, chosen)
        self._context.open()
        self.header = sha256(self._context.extradata or b"").hexdigest()

    def encode(self, pixels: Tensor, time: Fraction, duration: Fraction) -> Iterator[CodedFrame]:
        expected = (self._chosen.height, self._chosen.width)
        assert pixels.shape[1:] == expected, f"frame of {tuple(pixels.shape)}, not {expected}"
        pixels = pixels.detach().to("cpu", torch.float32)
        if self._source.keeps_hdr and self._source.color_transfer is not None:
            colour = from_restorable(pixels[:3], self._source.color_transfer)
            pixels = torch.cat([colour, pixels[3:]])
        width, height = self._chosen.coded_size
        if (height, width) != expected:
            right, bottom = width - expected[1], height - expected[0]
            pixels = F.pad(pixels[None], (0, right, 0, bottom), mode="replicate")[0]
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
            # Encoders give the last packet the duration of the one before, or none.
            duration = self._durations.pop(pts, packet.duration or 1)
            dts = pts if packet.dts is None else packet.dts
            alpha = _alpha_of(packet) if self._chosen.alpha else b""
            yield CodedFrame(bytes(packet), pts, dts, duration, packet.is_keyframe, alpha)


def _alpha_of(packet: Packet) -> bytes:
    """What Matroska keeps beside the block (BlockAdditional): VP9's transparency."""
    if not packet.has_sidedata("matroska_block_additional"):
        return b""
    return bytes(packet.get_sidedata("matroska_block_additional"))[8:]  # behind its number


_FRAMES = {"": ".png", ".apng": ".png"}
"""Suffix of a many-picture result -> that of each picture, where they differ."""


class _PictureEncoder:
    """Every frame is a whole file of its own."""

    header = ""

    def __init__(self, chosen: OutputFormat, source: ClipInfo, origin: Fraction) -> None:
        self._chosen = chosen
        suffix = _FRAMES.get(chosen.suffix, chosen.suffix)
        self._format = PictureFormat(suffix, chosen.bit_depth, source)
        self._clock = _Clock(source, origin)

    def encode(self, pixels: Tensor, time: Fraction, duration: Fraction) -> Iterator[CodedFrame]:
        data = encode_picture(pixels, self._format)
        if not self._chosen.suffix:
            data = marked(data)
        pts, length = self._clock.ticks(time, duration)
        yield CodedFrame(data, pts, pts, length, True)

    def finish(self) -> Iterator[CodedFrame]:
        return iter(())
