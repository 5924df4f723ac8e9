"""A clip that shows bicubic and restored together, to be shown to others."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from dloral.errors import InputError
from dloral.studio.jobs import Result
from dloral.video.probe import probe
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer

WIPE_SECONDS = 4
"""How long the line takes from left to right and back again."""

_LINE = 2  # pixels


def _side_by_side(bicubic: Tensor, restored: Tensor, time: Fraction) -> Tensor:
    return torch.cat([bicubic, restored], dim=2)


def _wiping(bicubic: Tensor, restored: Tensor, time: Fraction) -> Tensor:
    """Bicubic left of a line that goes to and fro."""
    width = bicubic.shape[2]
    phase = float(time % WIPE_SECONDS) / WIPE_SECONDS
    share = 2 * phase if phase < 0.5 else 2 - 2 * phase
    line = round((0.05 + 0.9 * share) * width)
    picture = restored.clone()
    picture[:, :, :line] = bicubic[:, :, :line]
    picture[:, :, max(line - _LINE // 2, 0) : line + _LINE // 2] = 1
    return picture


LAYOUTS: dict[str, Callable[[Tensor, Tensor, Fraction], Tensor]] = {
    "side": _side_by_side,
    "wipe": _wiping,
}


def comparison_clip(result: Result, layout: str) -> Path:
    """An H.264 clip beside the result, with its sound; made once, from the viewer's clip."""
    if result.clip.kind == "image":
        raise InputError("there is no comparison clip of a picture; show both with the viewer")
    target = result.file.parent / f"{result.clip.path.stem}-comparison-{layout}.mp4"
    if target.exists():
        return target
    source = probe(result.viewer_file)
    height, width = source.height // 2, source.width * (2 if layout == "side" else 1)
    with (
        read_frames(source) as frames,
        open_writer(target, width=width, height=height, source=source) as writer,
    ):
        for frame in frames:
            bicubic, restored = frame.pixels[:, :height], frame.pixels[:, height:]
            picture = LAYOUTS[layout](bicubic, restored, frame.time)
            writer.write(picture, frame.time, frame.duration)
    return target
