"""Clips in memory as other programs have them, restored as files are: enlarged, then refined."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from dloral.errors import OptionError, Setting
from dloral.frame_generator import FrameGenerator
from dloral.frames.resize import enlargement, resize_bicubic
from dloral.jobs.spans import output_size, stream_settings
from dloral.options import UpscaleOptions
from dloral.video.alpha import fill_hidden, with_alpha
from dloral.video.probe import ClipInfo


def size_of_result(height: int, width: int, options: UpscaleOptions) -> tuple[int, int]:
    """Height and width that frames will have; InputError where they would shrink, or grow more
    than four times."""
    clip = ClipInfo(
        path=Path("the clip"),
        kind="folder",
        width=width,
        height=height,
        num_frames=None,
        duration=None,
        fps=Fraction(24),
        codec="",
        pixel_format="rgb24",
        bit_depth=8,
    )
    return output_size(clip, options)


def enlarged_by(height: int, width: int, options: UpscaleOptions) -> float:
    """How many times frames of this size are enlarged."""
    return enlargement((height, width), size_of_result(height, width, options))


def restored_frames(
    frames: Iterable[Tensor],
    pipe: FrameGenerator,
    options: UpscaleOptions,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[Tensor]:
    """A restored frame (3,H,W) for each of ``frames``, float (3,h,w) in [0, 1], as they come.

    Frames of four channels have straight alpha last, and keep it, enlarged. What is held between
    two of them is what the model remembers. ``on_note``: told where memory is short.
    """
    waiting: deque[tuple[Tensor, Tensor | None]] = deque()  # at most one batch
    coming = iter(frames)
    first = next(coming, None)
    if first is None:
        return
    enlarged = enlarged_by(first.shape[1], first.shape[2], options)
    coming = chain([first], coming)
    del first

    def lq_frames() -> Iterator[Tensor]:
        for frame in coming:
            alpha = frame[3] if len(frame) == 4 else None
            colour = frame if alpha is None else fill_hidden(frame[:3], alpha)
            height, width = size_of_result(colour.shape[1], colour.shape[2], options)
            lq_frame = resize_bicubic(colour[None], height, width, options.bicubic)[0]
            waiting.append((lq_frame, alpha))
            yield lq_frame

    restored = pipe.stream(
        lq_frames(),
        prompt=options.prompt,
        **stream_settings(options),
        enlarged=enlarged,
        on_note=on_note,
    )
    for result in restored:
        lq_frame, alpha = waiting.popleft()
        if options.strength < 1:
            result = torch.lerp(lq_frame, result, options.strength)
        yield with_alpha(result, alpha)


def frames_of_images(images: Tensor) -> Tensor:
    """Pictures as ComfyUI has them, float (T,h,w,C) in [0, 1], as frames (T,C,h,w), C 3 or 4.

    Grey becomes RGB; what lies outside [0, 1] is cut off. OptionError for another shape.
    """
    shape = tuple(images.shape)
    if len(shape) != 4 or not images.numel() or shape[-1] not in (1, 3, 4):
        raise OptionError(
            "{option} has shape {value}",
            remedy="give (frames, height, width, channels) with 3 channels, 4 with alpha, or 1",
            option=Setting("images"),
            value=shape,
        )
    if not images.is_floating_point():
        raise OptionError(
            "{option} holds {value}",
            remedy="give floats in [0, 1]",
            option=Setting("images"),
            value=images.dtype,
        )
    frames = images.float().nan_to_num(0.0).clamp(0, 1).permute(0, 3, 1, 2)
    return frames.expand(-1, 3, -1, -1) if shape[-1] == 1 else frames
