"""The options for restoring a clip: one frozen set that validates itself."""

import re
from dataclasses import dataclass
from math import isfinite
from typing import Any

from dloral.errors import OptionError, Setting
from dloral.frames.colour import COLOUR_FIXES
from dloral.frames.resize import BICUBICS

SCALE_RANGE = (1.0, 4.0)
MAX_LORA_SCALE = 2.0
"""Twice what a LoRA was trained at; beyond that pictures fall apart."""

WINDOWS = (0, 1, 3, 5)
"""How many earlier frames CFR may look at (Table A3)."""

CODECS = ("h264", "h265", "av1", "vp9", "prores", "ffv1")
HARDWARE_CODECS = (
    *("h264-nvenc", "h265-nvenc", "av1-nvenc", "h264-qsv", "h265-qsv", "av1-qsv"),
    *("h264-videotoolbox", "h265-videotoolbox"),
)
"""Encoders of graphics cards, where there are any."""

AUTO = "auto"
TORCH = "torch"
RUNTIMES = (TORCH, AUTO, "openvino", "onnx")
"""What runs the networks on a CPU; auto: what was measured to be the fastest on this machine."""

BIT_DEPTHS = (AUTO, 8, 10)
"""Auto: 10 for a source of more than 8 bits, where the codec can."""

DEINTERLACING = (AUTO, "off", "frame", "field", "film")
"""Auto: a whole frame for each, where the clip is interlaced. Field: one for each field, at twice
the rate. Film: an inverse telecine."""

HDR = ("keep", "sdr")
CHROMA = (AUTO, "420", "422", "444")
AUDIO = (AUTO, "copy", "aac", "none")
PIPE_FORMATS = ("y4m", "rawvideo")
MAX_TARGET = 16384
"""Pixels a side that can be asked for."""

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")

SIZE_CHANGES = ("scale", "refuse")
"""What becomes of frames of another size than the first: scaled to it, or the clip is refused."""

VAES = (AUTO, "tiny", "tiny-decoder")
"""Whose encoder and decoder: the model's own, the tiny autoencoder's, or its decoder alone."""

TAGGERS = (AUTO, "dape", "ram", "none")
"""Who writes the prompt: auto is DAPE where it has been fetched and the model reads prompts."""

AUTO_TILE = 96
"""The reference's tile, in latent cells: ``tile="auto"`` tiles frames of more cells than that."""


@dataclass(frozen=True)
class UpscaleOptions:
    """Options of :func:`dloral.upscale_video`; raises :class:`OptionError` in one line.

    ``model``: a registry name, a folder, or a Hub id. ``scale``: enlargement, 1 to 4, fractions
    allowed. ``consistency``, ``detail``: scales of C-LoRA and D-LoRA, 0 to 2; detail also sets
    how crisp frames are made at the end, consistency how far each is then blended with the previous
    one, by a model that does so. ``strength``: how much of the restored frame is in the result, 0
    (the bicubic frame) to 1. ``window``: how many earlier frames are used (0, 1, 3, 5); with 0
    frames are not blended either. ``vae``: ``"tiny"`` for TAESD in place of the VAE,
    ``"tiny-decoder"`` for its decoder only. ``prompt``: what the clip shows, added to what
    ``tagger`` sees in each scene: dape, ram, none, or ``"auto"`` for DAPE if it is installed.
    ``tile``: latent cells a side, None for no tiles, ``"auto"`` for tiles only where a frame has
    more cells than the reference's 96 x 96. ``color_fix``: one of :data:`COLOUR_FIXES`, or
    ``"auto"`` for the model's own. ``bicubic``: the kernel of the enlargement that the model is
    given, torch's or Pillow's (``"pil"``). ``runtime``: what runs the networks on a CPU, one of
    :data:`RUNTIMES`. ``start``, ``duration``: seconds of the source.
    ``codec``, ``crf``, ``bit_depth``: of the written video. ``resume``: keep finished parts beside
    the target until it is written, and resume from existing ones; ``"auto"`` for jobs of more
    than two minutes.
    ``size_changes``: ``"scale"`` frames of another size to the first one's, or ``"refuse"`` such a
    clip. ``height``, ``width``, ``fit``: a target size instead of ``scale``; the shape is kept, and
    ``fit`` (``"3840x2160"``) is as large as fits inside. ``deinterlace``: auto, off, frame, field
    or film. ``hdr``: ``"keep"`` PQ and HLG, or tone-map to ``"sdr"``. ``fps``: of a folder of
    frames. ``preset``, ``encoder_options`` (``"name=value"``), ``chroma``: of the encoder.
    ``audio``: ``"copy"`` it or refuse, all as ``"aac"``, ``"none"``, or ``"auto"``: copied where
    possible. ``keep_names``: frames in a folder are named as the source's. ``size``
    (``"640x360"``), ``pixel_format`` (FFmpeg's name) and ``fps``: of raw video on standard input.
    ``pipe_format``: y4m or rawvideo on standard output.
    """

    model: str = "compact"
    scale: float = 4.0
    consistency: float = 1.0
    detail: float = 1.0
    strength: float = 1.0
    window: int = 1
    vae: str = AUTO
    prompt: str = ""
    tagger: str = AUTO
    color_fix: str = AUTO
    bicubic: str = "torch"
    device: str = AUTO
    dtype: str = AUTO
    runtime: str = TORCH
    tile: int | str | None = AUTO
    tile_overlap: int = 32
    batch_size: int = 1
    start: float = 0.0
    duration: float | None = None
    codec: str = "h264"
    crf: int | None = None
    bit_depth: int | str = AUTO
    resume: bool | str = AUTO
    size_changes: str = "scale"
    height: int | None = None
    width: int | None = None
    fit: str | None = None
    deinterlace: str = AUTO
    hdr: str = "keep"
    fps: float | None = None
    preset: str | None = None
    encoder_options: tuple[str, ...] = ()
    chroma: str = AUTO
    audio: str = AUTO
    keep_names: bool = True
    size: str | None = None
    pixel_format: str | None = None
    pipe_format: str = "y4m"

    def __post_init__(self) -> None:
        _within("scale", self.scale, *SCALE_RANGE)
        _within("consistency", self.consistency, 0, MAX_LORA_SCALE)
        _within("detail", self.detail, 0, MAX_LORA_SCALE)
        _within("strength", self.strength, 0, 1)
        _one_of("window", self.window, WINDOWS)
        _one_of("color_fix", self.color_fix, (AUTO, *COLOUR_FIXES))
        _one_of("bicubic", self.bicubic, BICUBICS)
        _one_of("vae", self.vae, VAES)
        _one_of("tagger", self.tagger, TAGGERS)
        _one_of("runtime", self.runtime, RUNTIMES)
        _one_of("codec", self.codec, (*CODECS, *HARDWARE_CODECS))
        _one_of("bit_depth", self.bit_depth, BIT_DEPTHS)
        _one_of("resume", self.resume, (AUTO, True, False))
        _one_of("size_changes", self.size_changes, SIZE_CHANGES)
        _within("start", self.start, 0)
        if self.duration is not None:
            _within("duration", self.duration, 0)
            if not self.duration:
                raise _out_of_range("duration", 0, "give a number of seconds above 0")
        if self.crf is not None:
            _within("crf", self.crf, 0, 63)
        _whole("batch_size", self.batch_size, 1)
        self._check_tile()
        self._check_output()

    def _check_output(self) -> None:
        _one_of("deinterlace", self.deinterlace, DEINTERLACING)
        _one_of("hdr", self.hdr, HDR)
        _one_of("chroma", self.chroma, CHROMA)
        _one_of("audio", self.audio, AUDIO)
        _one_of("keep_names", self.keep_names, (True, False))
        _one_of("pipe_format", self.pipe_format, PIPE_FORMATS)
        if self.fps is not None:
            _within("fps", self.fps, 0.001, 1000)
        given = [name for name in ("height", "width", "fit") if getattr(self, name) is not None]
        if len(given) > 1:
            raise OptionError(
                "{first} and {second} are both given",
                remedy="give one of them: the clip keeps its shape",
                first=Setting(given[0]),
                second=Setting(given[1]),
            )
        for name in ("height", "width"):
            if (side := getattr(self, name)) is not None:
                _whole(name, side, 1)
                _within(name, side, 1, MAX_TARGET)
        for name, example in (("fit", "3840x2160"), ("size", "640x360")):
            value = getattr(self, name)
            if value is not None and _sides(value) is None:
                raise OptionError(
                    "{option} is {value!r}",
                    remedy=f"give width x height, such as {example}",
                    option=Setting(name),
                    value=value,
                )

    @property
    def fit_size(self) -> tuple[int, int] | None:
        """Width and height of ``fit``; None where there is none."""
        return _sides(self.fit)

    @property
    def raw_size(self) -> tuple[int, int] | None:
        """Width and height of ``size``; None where there is none."""
        return _sides(self.size)

    def _check_tile(self) -> None:
        _whole("tile_overlap", self.tile_overlap, 0)
        if self.tile is None:
            return
        tile = AUTO_TILE if self.tile == AUTO else self.tile
        if not isinstance(tile, int) or tile < 1:
            raise _out_of_range("tile", tile, "give latent cells (8 pixels each), or auto")
        if self.tile_overlap >= tile:
            raise OptionError(
                "{option} is {value} with a tile of {tile} latent cells",
                remedy="the overlap must be smaller than the tile",
                option=Setting("tile_overlap"),
                value=self.tile_overlap,
                tile=tile,
            )


def _sides(text: Any) -> tuple[int, int] | None:
    """Width and height of ``WxH``; None for anything else."""
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    width, height = int(found[1]), int(found[2])
    return (width, height) if 0 < width <= MAX_TARGET and 0 < height <= MAX_TARGET else None


NO_NUMBER = 1e15
"""Seconds or whatever else: nobody means it, and a whole number may be too long for a float."""


def _within(name: str, value: float, least: float, most: float = float("inf")) -> None:
    is_number = isinstance(value, int | float) and abs(value) < NO_NUMBER
    if not is_number or not least <= value <= most:
        bounds = f"from {least:g} to {most:g}" if isfinite(most) else f"of at least {least:g}"
        told = str(value)  # a number, or text in its place
        raise OptionError(
            "{option} is {value}",
            remedy=f"give a number {bounds}",
            option=Setting(name),
            value=told,
        )


def _whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise _out_of_range(name, value, f"give a whole number of at least {least}")


def _one_of(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    # By type too: 1.0 equals 1 and would pass, and then fail where a count is needed.
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        known = ", ".join(map(str, choices))
        raise _out_of_range(name, value, f"choose from {known}")


def _out_of_range(name: str, value: object, remedy: str) -> OptionError:
    return OptionError("{option} is {value!r}", remedy=remedy, option=Setting(name), value=value)
