"""How many seconds of ZeroGPU's device a call asks for: its estimate, not a fixed number.

Less is asked for than a visitor may have left, so that a short clip is not refused; more than the
work takes, since ZeroGPU ends a call that goes beyond. All are functions of the lent call's
arguments, as ``spaces.GPU(duration=...)`` wants them.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

from torch import Tensor

from dloral.options import UpscaleOptions
from dloral.studio.estimates import run_seconds
from dloral.studio.gpu import model_of
from dloral.studio.runtime import Model
from dloral.studio.settings import Settings
from dloral.video.probe import ClipInfo

START_SECONDS = 5
"""A process is forked, and the weights go to the device."""

MARGIN = 1.2
LEAST_SECONDS = 10

UNKNOWN_FRAMES = 240
"""Of a clip that does not say how many it has: ten seconds (our decision)."""

SECONDS_PER_PIXEL = 1.0e-6
"""Before anything was timed. The full model's 3.7e-7 on an H200, 512 x 512 (docs/speed.md), and
half a GPU, which is what ZeroGPU lends."""


def job_seconds(clip: ClipInfo, folder: Path, settings: Settings, key: tuple[str, str]) -> int:
    """For a whole restoration."""
    model: Model = model_of(key)
    return asked(run_seconds(clip, settings, model, _cost(model), UNKNOWN_FRAMES)[1])


def preview_seconds(
    key: tuple[str, str], lq_frames: Tensor, options: UpscaleOptions, *_: Any
) -> int:
    """For a part of one frame, with the frames before it."""
    pixels = lq_frames.shape[0] * lq_frames.shape[-2] * lq_frames.shape[-1]
    return asked(pixels * _cost(model_of(key)))


def motion_seconds(
    key: tuple[str, str], frames: Sequence[Tensor], options: UpscaleOptions, *_: Any
) -> int:
    """For a part of some frames."""
    pixels = sum(frame.shape[-2] * frame.shape[-1] for frame in frames)
    return asked(pixels * _cost(model_of(key)))


def asked(seconds: float) -> int:
    """What is asked for work that takes ``seconds`` at most."""
    return max(LEAST_SECONDS, ceil(START_SECONDS + MARGIN * seconds))


def _cost(model: Model) -> float:
    return model.cost or SECONDS_PER_PIXEL
