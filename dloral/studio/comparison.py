"""Labelled clips that show before and after together, for sharing."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dloral.errors import InputError
from dloral.frames.clips import as_bytes
from dloral.frames.resize import resize_bicubic
from dloral.studio.records import Result
from dloral.video.probe import ClipInfo, probe
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer

WIPE_SECONDS = 4
"""How long the line takes from left to right and back again."""

LABELS = ("Before", "After")

LOOP_SECONDS = 4
"""Of a loop: short enough to be sent in a message. Shorter clips are repeated up to about that."""

_LINE = 2  # pixels


@dataclass(frozen=True)
class Loop:
    """A way to keep a loop. ``side``: of its picture, in pixels at most."""

    suffix: str
    side: int
    fps: int


LOOPS = {
    "loop": Loop(".mp4", 1280, 30),
    "gif": Loop(".gif", 640, 12),
    "webp": Loop(".webp", 640, 12),
}

WHOLE = "mp4"
"""All of the clip, with its sound."""

FORMATS = (WHOLE, *LOOPS)


def _side_by_side(before: Tensor, after: Tensor, phase: float) -> Tensor:
    return torch.cat([before, after], dim=2)


def _wiping(before: Tensor, after: Tensor, phase: float) -> Tensor:
    """Before, to the left of a line that moves back and forth."""
    width = before.shape[2]
    share = 2 * phase if phase < 0.5 else 2 - 2 * phase
    line = round((0.05 + 0.9 * share) * width)
    picture = after.clone()
    picture[:, :, :line] = before[:, :, :line]
    picture[:, :, max(line - _LINE // 2, 0) : line + _LINE // 2] = 1
    return picture


def _alone(before: Tensor, after: Tensor, phase: float) -> Tensor:
    return after


LAYOUTS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "side": _side_by_side,
    "wipe": _wiping,
    "after": _alone,
}
"""By their phase, which goes from 0 to 1 while the line goes to and fro."""

UNLABELLED = ("after",)


def comparison_clip(result: Result, layout: str, kept_as: str = WHOLE) -> Path:
    """A comparison beside the result, made once, from the viewer's clip: all of it as an H.264 clip
    with its sound, or its first seconds as a loop that is MP4, GIF or WebP."""
    if result.clip.kind == "image":
        raise InputError("a picture has no comparison clip; save the viewer's frame instead")
    loop = LOOPS.get(kept_as)
    ending = f"-loop{loop.suffix}" if loop else f".{WHOLE}"
    target = result.file.parent / f"{result.clip.path.stem}-comparison-{layout}{ending}"
    if target.exists():
        return target
    part = target.with_name(f"part-{target.name}")
    try:
        if loop is None:
            _write_clip(result, layout, part)
        else:
            _write_loop(result, layout, loop, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def comparisons_of(result: Result) -> list[Path]:
    """The comparisons made so far."""
    made = result.file.parent.glob("*-comparison-*.*")
    return [path for path in made if path.is_file() and not path.name.startswith("part-")]


def _pictures(
    source: ClipInfo,
    layout: str,
    period: Fraction,
    duration: Fraction | None = None,
    elapsed: Fraction = Fraction(0),
) -> Iterator[tuple[Tensor, Fraction, Fraction]]:
    """Labelled frames of the viewer's clip with their times and durations. ``elapsed``: seconds
    that were shown before, for the line of a wipe."""
    height = source.height // 2
    labels: list[tuple[Tensor, int, int]] | None = None
    with read_frames(source, duration=duration) as frames:
        for frame in frames:
            before, after = frame.pixels[:, :height], frame.pixels[:, height:]
            phase = float((elapsed + frame.time) % period / period)
            picture = LAYOUTS[layout](before, after, phase)
            if labels is None:
                size = picture.shape[1], picture.shape[2]
                labels = [] if layout in UNLABELLED else _labels(*size, layout)
            for label, top, left in labels:
                rows, columns = label.shape[1:]
                place = picture[:, top : top + rows, left : left + columns]
                place.mul_(0.35).add_(label[:, : place.shape[1], : place.shape[2]] * 0.65)
            yield picture, frame.time, frame.duration


def _labels(height: int, width: int, layout: str) -> list[tuple[Tensor, int, int]]:
    """What is written into each frame: pixels (3,h,w) with their top and left; nothing where the
    picture is too small to read it."""
    size = max(11, round(height / 26))
    font = ImageFont.load_default(size)
    edge = size // 2
    found = []
    for index, text in enumerate(LABELS):
        left, top, right, bottom = font.getbbox(text)
        box = Image.new("RGB", (round(right - left) + size, round(bottom - top) + size), "black")
        ImageDraw.Draw(box).text((size / 2 - left, size / 2 - top), text, "white", font)
        if (
            2 * (box.width + edge) > width / (2 if layout == "side" else 1)
            or box.height > height / 3
        ):
            return []
        pixels = torch.from_numpy(np.array(box)).permute(2, 0, 1).float() / 255
        if layout == "side":
            at = index * (width // 2) + edge
        else:
            at = edge if index == 0 else width - box.width - edge
        found.append((pixels, edge, at))
    return found


def _write_clip(result: Result, layout: str, target: Path) -> None:
    source = probe(result.viewer_file)
    height, width = source.height // 2, source.width * (2 if layout == "side" else 1)
    with open_writer(target, width=width, height=height, source=source) as writer:
        for picture, time, duration in _pictures(source, layout, Fraction(WIPE_SECONDS)):
            writer.write(picture, time, duration)


def _write_loop(result: Result, layout: str, loop: Loop, target: Path) -> None:
    source = probe(result.viewer_file)
    pictures = _looping(source, layout, loop)
    if loop.suffix == ".mp4":
        _write_silent(pictures, source, target)
        return
    frames: list[Image.Image] = []
    length = Fraction(0)
    for picture, _, duration in pictures:
        frames.append(Image.fromarray(as_bytes(picture)))
        length += duration
    frames[0].save(
        target,
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 * length / len(frames)),
        loop=0,
        **({"quality": 75, "method": 3} if loop.suffix == ".webp" else {"optimize": True}),
    )


def _write_silent(
    pictures: Iterator[tuple[Tensor, Fraction, Fraction]], source: ClipInfo, target: Path
) -> None:
    first = next(pictures)
    height, width = first[0].shape[1:]
    with open_writer(target, width=width, height=height, source=source, audio="none") as writer:
        for picture, time, duration in itertools.chain([first], pictures):
            writer.write(picture, time, duration)


def _looping(
    source: ClipInfo, layout: str, loop: Loop
) -> Iterator[tuple[Tensor, Fraction, Fraction]]:
    """What a loop shows, no more than ``loop.fps`` pictures a second. The line of a wipe is at the
    end where it began."""
    once = min(source.duration or Fraction(LOOP_SECONDS), Fraction(LOOP_SECONDS))
    # what stands still beside its labels needs no second round where the format itself goes on
    is_moving = layout == "wipe" or loop.suffix == ".mp4"
    rounds = max(1, round(LOOP_SECONDS / once)) if is_moving else 1
    shown_until = Fraction(0)
    for turn in range(rounds):
        start = turn * once
        for picture, time, duration in _pictures(source, layout, rounds * once, once, start):
            if start + time + duration <= shown_until:
                continue  # faster than the loop
            shown = max(Fraction(1, loop.fps), duration)
            yield _small(picture, loop.side), shown_until, shown
            shown_until += shown


def _small(picture: Tensor, most_side: int) -> Tensor:
    """No side longer than ``most_side``, both even: every player takes that."""
    height, width = picture.shape[1:]
    ratio = min(1, most_side / max(height, width))
    rows, columns = (max(2, 2 * round(side * ratio / 2)) for side in (height, width))
    if (rows, columns) == (height, width):
        return picture
    return resize_bicubic(picture[None].float(), rows, columns)[0]
