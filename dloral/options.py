"""What a person may choose when a clip is restored: one frozen set that checks itself."""

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, get_args

from dloral.errors import OptionError
from dloral.frames.colour import COLOUR_FIXES
from dloral.pipeline import WINDOWS
from dloral.video.writer import CODECS
from dloral.weights.loading import DEVICES, DTYPES

SCALES = (1.0, 4.0)
MAX_LORA_SCALE = 2.0
"""Twice what a LoRA was trained at; beyond that pictures fall apart."""

AUTO = "auto"


@dataclass(frozen=True)
class UpscaleOptions:
    """Options of :func:`dloral.upscale_video`; raises :class:`OptionError` in one line.

    ``model``: a registry name, a folder, or a Hub id. ``scale``: enlargement, 1 to 4, fractions
    allowed. ``consistency``, ``detail``: scales of C-LoRA and D-LoRA, 0 to 2. ``window``: how many
    earlier frames are looked at. ``tile``: latent cells a side, None for no tiles, ``"auto"`` for
    tiles only where a frame is larger than the reference's 96 x 96 cells. ``start``,
    ``duration``: seconds of the source. ``crf``, ``codec``, ``bit_depth``: of the written video.
    """

    model: str = "compact"
    scale: float = 4.0
    consistency: float = 1.0
    detail: float = 1.0
    window: int = 1
    prompt: str = ""
    color_fix: str = "adain"
    device: str = AUTO
    dtype: str = AUTO
    tile: int | str | None = AUTO
    tile_overlap: int = 32
    batch_size: int = 1
    start: float = 0.0
    duration: float | None = None
    codec: str = "h264"
    crf: int | None = None
    bit_depth: int = 8
    resume: bool = False
