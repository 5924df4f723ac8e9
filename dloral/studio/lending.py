"""How many GPU seconds a call requests from ZeroGPU: an estimate, not a fixed number.

It should be less than a visitor may have left, so that a short clip is not refused, but more than
the work takes, since ZeroGPU ends a call that runs over. These are functions of the lent call's
arguments, as ``spaces.GPU(duration=...)`` expects.
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
"""For forking a process and moving the weights to the device."""

MARGIN = 1.2
LEAST_SECONDS = 10

UNKNOWN_FRAMES = 240
"""Assumed for a clip that does not say how many it has: ten seconds (our decision)."""

SECONDS_PER_PIXEL = 1.0e-6
"""Until something has been timed: based on the full model's 3.7e-7 on an H200 at 512 x 512
(docs/speed.md), doubled for half a GPU, which is what ZeroGPU lends, and a third more."""


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
    """Seconds to request for work that takes at most ``seconds``."""
    return max(LEAST_SECONDS, ceil(START_SECONDS + MARGIN * seconds))


def _cost(model: Model) -> float:
    return model.cost or SECONDS_PER_PIXEL
