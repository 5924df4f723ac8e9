"""The codecs that can be written: which container holds them, and how they are set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any, cast

import av
from av import VideoFrame
from av.video.codeccontext import VideoCodecContext

from dloral.errors import OptionError, Setting
from dloral.video.hdr import Mastering
from dloral.video.media import MAX_OUTPUT_PIXELS, MAX_SIDE

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""File suffix -> FFmpeg's name for the container."""

_MP4 = (".mp4", ".mkv", ".mov")
_420 = {8: "yuv420p", 10: "yuv420p10le"}
_444 = {8: "yuv444p", 10: "yuv444p10le"}
_SPEEDS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium"),
    *("slow", "slower", "veryslow", "placebo"),
)
LONG_H265 = 4216
"""Pixels a side above which H.265 has no coding units of 16: levels from 5 on."""

_LISTS = ("x264-params", "x265-params", "svtav1-params")
"""Options that hold options of their own, separated by colons."""


@dataclass(frozen=True)
class Encoder:
    """One codec: FFmpeg's encoder, containers by suffix, pixel formats by depth, options.

    ``quality``: the option that a constant quality goes to; ``default_crf`` is None where there is
    none. ``formats``: bit depth -> format for even sizes; ``whole``: bit depth -> format that holds
    any size, with chroma in every pixel; ``alpha``: bit depth -> format with transparency.
    ``chroma``: what may be chosen instead. ``presets``: names of speeds, for ``preset_option``.
    ``least``: pixels a side below which frames are padded; ``narrow``: a length, and the least of
    the other side where a frame is longer. ``most_lines``, ``most_pixels``: of a frame, where the
    encoder takes less than :func:`targets.check_output_size` lets through.
    """

    library: str
    suffixes: tuple[str, ...]
    formats: dict[int, str]
    whole: dict[int, str]
    alpha: dict[int, str] = field(default_factory=dict)
    chroma: tuple[str, ...] = ("420", "444")
    default_crf: int | None = None
    max_crf: int = 51
    quality: str = "crf"
    options: dict[str, str] = field(default_factory=dict)
    presets: tuple[str, ...] = ()
    preset_option: str = "preset"
    tag: str | None = None
    least: int = 1
    narrow: tuple[int, int] = (MAX_SIDE, 1)
    most_lines: int = MAX_SIDE
    most_pixels: int = MAX_OUTPUT_PIXELS
    is_hardware: bool = False

    def pixel_format(
        self, width: int, height: int, bit_depth: int, chroma: str = "auto", alpha: bool = False
    ) -> str:
        if alpha:
            return self.alpha[bit_depth]
        if chroma != "auto":
            return f"yuv{chroma}p" + ("10le" if self.formats[bit_depth].endswith("10le") else "")
        even = width % 2 == 0 and height % 2 == 0
        return (self.formats if even else self.whole)[bit_depth]


def _hardware(library: str, ten_bits: str, suffixes: tuple[str, ...] = _MP4, **own: Any) -> Encoder:
    """A graphics card's encoder; all support 4:2:0 only."""
    formats = {8: "nv12"} if not ten_bits else {8: "nv12", 10: ten_bits}
    whole: dict[int, str] = {}
    return Encoder(library, suffixes, formats, whole, chroma=(), is_hardware=True, **own)


_NVENC: dict[str, Any] = {
    "default_crf": 19,
    "quality": "cq",
    "options": {"preset": "p5", "rc": "vbr", "b": "0", "bf": "0"},
    "presets": ("p1", "p2", "p3", "p4", "p5", "p6", "p7"),
}
_QSV: dict[str, Any] = {
    "default_crf": 19,
    "quality": "global_quality",
    "options": {"preset": "medium", "bf": "0"},
    "presets": _SPEEDS[2:9],
}
_APPLE: dict[str, Any] = {"options": {"bf": "0", "b": "20000000", "allow_sw": "0"}}
_AV1 = (".mp4", ".mkv", ".webm")

ENCODERS = {
    "h264": Encoder(
        "libx264",
        _MP4,
        _420,
        _444,
        chroma=("420", "422", "444"),
        default_crf=16,
        # No B-frames: MP4 keeps durations in decoding order, so that with them the last frame of a
        # variable-rate clip is shown for as long as another.
        options={"preset": "medium", "bf": "0"},
        presets=_SPEEDS,
    ),
    "h265": Encoder(
        "libx265",
        _MP4,
        _420,
        _444,
        chroma=("420", "422", "444"),
        default_crf=18,
        options={"preset": "medium", "x265-params": "log-level=error:bframes=0"},
        presets=_SPEEDS,
        tag="hvc1",
        least=16,
        narrow=(LONG_H265, 32),
        most_pixels=16384 * 8704,
    ),
    "av1": Encoder(
        "libsvtav1",
        _AV1,
        _420,
        _420,
        chroma=("420",),
        default_crf=24,
        max_crf=63,
        least=4,
        narrow=(64, 26),  # SVT-AV1 4.1 never ends with 72 x 24
        most_lines=8704,
        # no pictures that are never shown, so that every packet is a frame (as with B-frames)
        options={"preset": "7", "svtav1-params": "pred-struct=1"},
        presets=tuple(str(speed) for speed in range(14)),
    ),
    "vp9": Encoder(
        "libvpx-vp9",
        (".webm", ".mkv"),  # in MP4 the last frame's length would be lost
        _420,
        _444,
        alpha={8: "yuva420p"},
        chroma=("420", "422", "444"),
        default_crf=20,
        max_crf=63,
        options={"b": "0", "row-mt": "1", "deadline": "good", "cpu-used": "3"},
        presets=tuple(str(speed) for speed in range(9)),
        preset_option="cpu-used",
    ),
    "prores": Encoder(
        "prores_ks",
        (".mov", ".mkv"),
        {8: "yuv422p10le", 10: "yuv422p10le"},
        {8: "yuv444p10le", 10: "yuv444p10le"},
        alpha={8: "yuva444p10le", 10: "yuva444p10le"},
        chroma=("422", "444"),
        options={"profile": "hq", "vendor": "apl0"},
        presets=("proxy", "lt", "standard", "hq", "4444", "4444xq"),
        preset_option="profile",
    ),
    "ffv1": Encoder(
        "ffv1",
        (".mkv",),
        {8: "bgr0", 10: "gbrp10le"},
        {8: "bgr0", 10: "gbrp10le"},
        alpha={8: "bgra", 10: "gbrap10le"},
        narrow=(288, 2),  # beyond 288 lines it wants two slices
        chroma=("420", "422", "444"),
        options={"level": "3", "g": "1", "slicecrc": "1"},
    ),
    "h264-nvenc": _hardware("h264_nvenc", "", **_NVENC),
    "h265-nvenc": _hardware("hevc_nvenc", "p010le", tag="hvc1", **_NVENC),
    "av1-nvenc": _hardware("av1_nvenc", "p010le", _AV1, **_NVENC),
    "h264-qsv": _hardware("h264_qsv", "", **_QSV),
    "h265-qsv": _hardware("hevc_qsv", "p010le", tag="hvc1", **_QSV),
    "av1-qsv": _hardware("av1_qsv", "p010le", _AV1, **_QSV),
    "h264-videotoolbox": _hardware("h264_videotoolbox", "", **_APPLE),
    "h265-videotoolbox": _hardware("hevc_videotoolbox", "p010le", tag="hvc1", **_APPLE),
}

FOR_VIEWING = "h264-seek"
"""A codec that users cannot choose: for a player that jumps from frame to frame."""

_FOR_VIEWING = Encoder(
    "libx264",
    (".mp4",),
    {8: "yuv420p"},
    {8: "yuv444p"},
    default_crf=14,
    # A key frame every eighth frame, and quick to write alongside the result.
    options={"preset": "veryfast", "bf": "0", "g": "8"},
)


def choose_encoder(codec: str, suffix: str, bit_depth: int, crf: int | None) -> Encoder:
    """The encoder of ``codec`` for a file of this suffix; OptionError if they do not match."""
    if codec == FOR_VIEWING:
        return _FOR_VIEWING
    if codec not in ENCODERS:
        raise OptionError(f"codec is {codec!r}; choose from {', '.join(ENCODERS)}")
    encoder = ENCODERS[codec]
    if suffix not in encoder.suffixes:
        fitting = [name for name, e in ENCODERS.items() if suffix in e.suffixes]
        usual = [name for name in fitting if not ENCODERS[name].is_hardware]
        raise OptionError(
            f"{suffix} cannot hold {codec}; write {' or '.join(encoder.suffixes)}, "
            f"or choose codec {' or '.join(usual)}"
        )
    if bit_depth not in (8, 10):
        raise OptionError(f"bit_depth is {bit_depth}; choose 8 or 10")
    if encoder.is_hardware and not _is_present(encoder.library):
        raise OptionError(
            f"{codec} needs a graphics card that encodes it, and there is none here; "
            f"choose {codec.partition('-')[0]}"
        )
    if not _holds_depth(encoder, bit_depth):
        raise OptionError(
            f"{codec} is written with 8 bits only by this installation; choose h265, h264 or ffv1"
        )
    if crf is not None and encoder.default_crf is None:
        raise OptionError(f"{codec} has no crf; leave it out, or choose h264, h265 or vp9")
    if crf is not None and not 0 <= crf <= encoder.max_crf:
        raise OptionError(f"crf is {crf}; {codec} takes 0 (best) to {encoder.max_crf}")
    return encoder


def check_choices(
    codec: str, width: int, height: int, bit_depth: int, chroma: str, preset: str | None
) -> None:
    """OptionError if a codec cannot do what was asked of it."""
    encoder = ENCODERS.get(codec, _FOR_VIEWING)
    lines = min(encoder.most_lines, encoder.most_pixels // width)
    if height > lines:
        raise OptionError(
            "{codec} takes at most {lines} lines of {width} pixels, and {value} are to be written",
            remedy="choose a smaller {scale} or another {option}",
            codec=codec,
            lines=lines,
            width=width,
            value=height,
            scale=Setting("scale"),
            option=Setting("codec"),
        )
    if chroma != "auto":
        chosen = encoder.pixel_format(width, height, bit_depth, chroma)
        if chroma not in encoder.chroma or chosen not in _writable_formats(encoder.library):
            able = ", ".join(encoder.chroma) or "its own only"
            raise OptionError(
                f"{codec} is not written with chroma {chroma}", remedy=f"choose auto or {able}"
            )
        if (chroma != "444" and width % 2) or (chroma == "420" and height % 2):
            raise OptionError(
                f"{width}x{height} is odd, and chroma {chroma} needs pairs of pixels",
                remedy="choose 444 or auto",
            )
    elif encoder.is_hardware and (width % 2 or height % 2):
        raise OptionError(
            f"{width}x{height} is odd, and {codec} takes even sizes only",
            remedy=f"choose {codec.partition('-')[0]} or another size",
        )
    if preset is not None and preset not in encoder.presets:
        names = ", ".join(encoder.presets)
        raise OptionError(
            "{option} is {value!r}",
            remedy=f"{codec} has {names}" if names else f"{codec} has none: leave it out",
            option=Setting("preset"),
            value=preset,
        )


def deepest(codec: str, alpha: bool = False) -> int:
    """10 if this installation can write the codec with 10 bits, else 8."""
    encoder = ENCODERS.get(codec, _FOR_VIEWING)
    if alpha:
        return 10 if 10 in encoder.alpha else 8
    return 10 if _holds_depth(encoder, 10) else 8


def present_codecs() -> list[str]:
    """Names in ``ENCODERS`` that this machine can write, including those of its graphics cards."""
    return [
        name
        for name, encoder in ENCODERS.items()
        if _writable_formats(encoder.library)
        and (not encoder.is_hardware or _is_present(encoder.library))
    ]


def encoder_options(
    encoder: Encoder, crf: int | None, preset: str | None, extra: tuple[str, ...]
) -> dict[str, str]:
    """FFmpeg's options; ``extra`` are the user's own, ``name=value``. OptionError for an unknown
    name."""
    options = dict(encoder.options)
    if encoder.default_crf is not None:
        options[encoder.quality] = str(encoder.default_crf if crf is None else crf)
    if preset is not None:
        options[encoder.preset_option] = preset
    for text in extra:
        name, equals, value = text.partition("=")
        if not equals or name not in _option_names(encoder.library):
            raise OptionError(
                "{option} is {value!r}",
                remedy=f"give name=value with an option that FFmpeg's {encoder.library} has",
                option=Setting("encoder_option"),
                value=text,
            )
        add_option(options, name, value)
    return options


def add_option(options: dict[str, str], name: str, value: str) -> None:
    """Set an option; one that is a list of others is appended to."""
    before = options.get(name) if name in _LISTS else None
    options[name] = f"{before}:{value}" if before else value


def mastering_options(library: str, mastering: Mastering) -> tuple[str, str] | None:
    """Name and value of the option that puts ``mastering`` into the stream; None if an encoder has
    none."""
    steps = (1, 1) if library != "libsvtav1" else (50_000, 10_000)

    def numbers(values: tuple[int, ...], step: int) -> str:
        return ",".join(f"{value / step:.10g}" for value in values)

    parts = []
    if mastering.primaries and mastering.white and mastering.luminance:
        red, green, blue = (numbers(mastering.primaries[at : at + 2], steps[0]) for at in (0, 2, 4))
        white = numbers(mastering.white, steps[0])
        light = numbers(mastering.luminance[::-1], steps[1])
        name = "master-display" if library == "libx265" else "mastering-display"
        parts.append(f"{name}=G({green})B({blue})R({red})WP({white})L({light})")
    light = f"{mastering.max_cll},{mastering.max_fall}"
    if library == "libx265":
        parts += ["hdr10=1", f"max-cll={light}"]
        return "x265-params", ":".join(parts)
    if library == "libx264":
        return "x264-params", ":".join([*parts, f"cll={light}"])
    if library == "libsvtav1":
        return "svtav1-params", ":".join([*parts, f"content-light={light}"])
    return None


def _holds_depth(encoder: Encoder, bit_depth: int) -> bool:
    return encoder.formats.get(bit_depth) in _writable_formats(encoder.library)


@cache
def _writable_formats(library: str) -> frozenset[str]:
    try:
        formats = av.Codec(library, "w").video_formats
    except av.codec.codec.UnknownCodecError:
        return frozenset()
    return frozenset(fmt.name for fmt in formats or ())


@cache
def _option_names(library: str) -> frozenset[str]:
    found = av.CodecContext.create(library, "w").supported_options
    return frozenset(option.name for option in (*found.private, *found.generic))


@cache
def _is_present(library: str) -> bool:
    """Whether a hardware encoder accepts a frame on this machine."""
    try:
        context = cast(VideoCodecContext, av.CodecContext.create(library, "w"))
        context.width, context.height, context.pix_fmt = 256, 256, "nv12"
        context.time_base = Fraction(1, 25)
        frame = VideoFrame(256, 256, "nv12")
        frame.pts, frame.time_base = 0, context.time_base
        return bool([*context.encode(frame), *context.encode(None)])
    except (av.FFmpegError, av.codec.codec.UnknownCodecError, ValueError):
        return False
