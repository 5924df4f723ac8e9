"""Clips that show before and after together, labelled, to be shown to others."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dloral.errors import InputError
from dloral.frames.clips import as_bytes
from dloral.studio.pictures import within
from dloral.studio.records import Result
from dloral.video.probe import probe
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer

WIPE_SECONDS = 4
"""How long the line takes from left to right and back again."""

LABELS = ("Before", "After")

LOOP_SIDE = 640
LOOP_FPS = 12
LOOP_SECONDS = 4
"""Of a GIF or WebP: small enough to be sent in a message."""

_LINE = 2  # pixels


def _side_by_side(before: Tensor, after: Tensor, time: Fraction) -> Tensor:
    return torch.cat([before, after], dim=2)


def _wiping(before: Tensor, after: Tensor, time: Fraction) -> Tensor:
    """Before left of a line that goes to and fro."""
    width = before.shape[2]
    phase = float(time % WIPE_SECONDS) / WIPE_SECONDS
    share = 2 * phase if phase < 0.5 else 2 - 2 * phase
    line = round((0.05 + 0.9 * share) * width)
    picture = after.clone()
    picture[:, :, :line] = before[:, :, :line]
    picture[:, :, max(line - _LINE // 2, 0) : line + _LINE // 2] = 1
    return picture


LAYOUTS: dict[str, Callable[[Tensor, Tensor, Fraction], Tensor]] = {
    "side": _side_by_side,
    "wipe": _wiping,
}

FORMATS = ("mp4", "gif", "webp")


def comparison_clip(result: Result, layout: str, kept_as: str = "mp4") -> Path:
    """A comparison beside the result, made once, from the viewer's clip: all of it as an H.264 clip
    with its sound, or its first seconds as a looping GIF or WebP."""
    if result.clip.kind == "image":
        raise InputError(
            "there is no comparison clip of a picture; save the viewer's frame instead"
        )
    target = result.file.parent / f"{result.clip.path.stem}-comparison-{layout}.{kept_as}"
    if target.exists():
        return target
    part = target.with_name(f"part-{target.name}")
    try:
        if kept_as == "mp4":
            _write_clip(result, layout, part)
        else:
            _write_loop(result, layout, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _pictures(result: Result, layout: str) -> Iterator[tuple[Tensor, Fraction, Fraction]]:
    """Labelled frames with their times and durations."""
    source = probe(result.viewer_file)
    height = source.height // 2
    labels: list[tuple[Tensor, int, int]] | None = None
    with read_frames(source) as frames:
        for frame in frames:
            before, after = frame.pixels[:, :height], frame.pixels[:, height:]
            picture = LAYOUTS[layout](before, after, frame.time)
            labels = labels or _labels(picture.shape[1], picture.shape[2], layout)
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
        for picture, time, duration in _pictures(result, layout):
            writer.write(picture, time, duration)


def _write_loop(result: Result, layout: str, target: Path) -> None:
    frames: list[Image.Image] = []
    shown_until = Fraction(0)
    for picture, time, duration in _pictures(result, layout):
        if time >= LOOP_SECONDS:
            break
        if time + duration <= shown_until:
            continue  # faster than the loop
        frames.append(Image.fromarray(as_bytes(within(picture, LOOP_SIDE))))
        shown_until += max(Fraction(1, LOOP_FPS), duration)
    length = shown_until / max(len(frames), 1)
    frames[0].save(
        target,
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 * length),
        loop=0,
        **({"quality": 75, "method": 3} if target.suffix == ".webp" else {"optimize": True}),
    )
