"""The codecs that can be written: which container holds them, and how they are set up."""

from __future__ import annotations

from dataclasses import dataclass, field

import av

from dloral.errors import OptionError

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""File suffix -> FFmpeg's name of the container."""


@dataclass(frozen=True)
class Encoder:
    """One codec: FFmpeg's encoder, containers by suffix, pixel formats by depth, options.

    ``default_crf`` is None where quality is not chosen by a constant rate factor. ``formats``:
    bit depth -> format for even sizes; ``whole``: bit depth -> format that holds any size, with
    chroma in every pixel.
    """

    library: str
    suffixes: tuple[str, ...]
    formats: dict[int, str]
    whole: dict[int, str]
    default_crf: int | None = None
    max_crf: int = 51
    options: dict[str, str] = field(default_factory=dict)
    tag: str | None = None

    def pixel_format(self, width: int, height: int, bit_depth: int) -> str:
        even = width % 2 == 0 and height % 2 == 0
        return (self.formats if even else self.whole)[bit_depth]


ENCODERS = {
    "h264": Encoder(
        "libx264",
        (".mp4", ".mkv", ".mov"),
        {8: "yuv420p", 10: "yuv420p10le"},
        {8: "yuv444p", 10: "yuv444p10le"},
        default_crf=16,
        # No B-frames: MP4 keeps lengths in decoding order, so that with them the last frame of a
        # clip of variable rate is shown for as long as another.
        options={"preset": "medium", "bf": "0"},
    ),
    "h265": Encoder(
        "libx265",
        (".mp4", ".mkv", ".mov"),
        {8: "yuv420p", 10: "yuv420p10le"},
        {8: "yuv444p", 10: "yuv444p10le"},
        default_crf=18,
        options={"preset": "medium", "x265-params": "log-level=error:bframes=0"},
        tag="hvc1",
    ),
    "vp9": Encoder(
        "libvpx-vp9",
        (".webm", ".mkv"),  # in MP4 the last frame's length would be lost
        {8: "yuv420p", 10: "yuv420p10le"},
        {8: "yuv444p", 10: "yuv444p10le"},
        default_crf=20,
        max_crf=63,
        options={"b": "0", "row-mt": "1", "deadline": "good", "cpu-used": "3"},
    ),
    "prores": Encoder(
        "prores_ks",
        (".mov", ".mkv"),
        {8: "yuv422p10le", 10: "yuv422p10le"},
        {8: "yuv444p10le", 10: "yuv444p10le"},
        options={"profile": "hq", "vendor": "apl0"},
    ),
    "ffv1": Encoder(
        "ffv1",
        (".mkv",),
        {8: "bgr0", 10: "gbrp10le"},
        {8: "bgr0", 10: "gbrp10le"},
        options={"level": "3", "g": "1", "slicecrc": "1"},
    ),
}

FOR_VIEWING = "h264-seek"
"""A codec that is no choice of a person's: for a player that jumps from frame to frame."""

_FOR_VIEWING = Encoder(
    "libx264",
    (".mp4",),
    {8: "yuv420p"},
    {8: "yuv444p"},
    default_crf=14,
    # A key frame every eighth, and quick to write beside the result itself.
    options={"preset": "veryfast", "bf": "0", "g": "8"},
)


def choose_encoder(codec: str, suffix: str, bit_depth: int, crf: int | None) -> Encoder:
    """The encoder of ``codec`` for a file of this suffix; OptionError where they do not agree."""
    if codec == FOR_VIEWING:
        return _FOR_VIEWING
    if codec not in ENCODERS:
        raise OptionError(f"codec is {codec!r}; choose from {', '.join(ENCODERS)}")
    encoder = ENCODERS[codec]
    if suffix not in encoder.suffixes:
        fitting = [name for name, other in ENCODERS.items() if suffix in other.suffixes]
        raise OptionError(
            f"{suffix} cannot hold {codec}; write {' or '.join(encoder.suffixes)}, "
            f"or choose codec {' or '.join(fitting)}"
        )
    if bit_depth not in encoder.formats:
        raise OptionError(f"bit_depth is {bit_depth}; choose 8 or 10")
    if encoder.formats[bit_depth] not in _writable_formats(encoder.library):
        raise OptionError(
            f"{codec} is written with 8 bits only by this installation; choose h265, h264 or ffv1"
        )
    if crf is not None and encoder.default_crf is None:
        raise OptionError(f"{codec} has no crf; leave it out, or choose h264, h265 or vp9")
    if crf is not None and not 0 <= crf <= encoder.max_crf:
        raise OptionError(f"crf is {crf}; {codec} takes 0 (best) to {encoder.max_crf}")
    return encoder


def _writable_formats(library: str) -> set[str]:
    formats = av.Codec(library, "w").video_formats
    return {fmt.name for fmt in formats or ()}
