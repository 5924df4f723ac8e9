"""Comparison videos and sheets: side by side, wipe, zoom, difference, temporal profile.

moviepy lays them out and writes them; frames come from this project's own reader, so that they are
exactly the frames that are measured, in order and upright. Smaller clips, such as an input, are
enlarged to the largest (bicubic).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dloral.errors import InputError, OptionError, Setting
from dloral.evaluation.outputs import check_output
from dloral.files import write_whole
from dloral.frames.clips import as_bytes
from dloral.frames.resize import resize_bicubic
from dloral.packages import needs_extra
from dloral.video.probe import ClipInfo, probe
from dloral.video.reader import Frame, read_frames

MODES = ("side", "wipe", "zoom", "difference", "profile")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
SHEET_SUFFIXES = (".png", ".jpg")
WIPE_SECONDS = 4.0  # there and back
LINE = (255, 210, 60)
COLUMNS = 3
LABEL_SHARE = 28  # a label is this fraction of the picture's height

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Box:
    """A part of the picture in pixels of the largest clip."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Look:
    """How clips are laid out; validated on construction. Raises :class:`OptionError`.

    ``mode``: one of MODES. ``box``: what ``zoom`` shows (None: a quarter of each side, in the
    middle). ``gain``: how much ``difference`` exaggerates. ``row``: of ``profile`` (None: the
    middle). ``frame``: of a sheet (None: the middle).
    """

    mode: str = "side"
    box: Box | None = None
    gain: float = 4.0
    row: int | None = None
    frame: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise OptionError(
                "{option} is {value!r}",
                remedy=f"choose from {', '.join(MODES)}",
                option=Setting("mode"),
                value=self.mode,
            )
        if not (self.gain > 0 and isfinite(self.gain)):
            raise OptionError(
                "{option} is {value!r}",
                remedy="give a number above 0",
                option=Setting("gain"),
                value=self.gain,
            )


class Playing:
    """A clip as moviepy asks for it: the picture at a given time; times never go backwards."""

    def __init__(self, frames: Iterator[Frame], clip: ClipInfo, size: tuple[int, int]) -> None:
        self.frames, self.clip, self.size = frames, clip, size
        self.index = -1
        self.picture: Picture = np.zeros((*size, 3), np.uint8)

    def at(self, index: int) -> Picture:
        """Frame ``index``, uint8 (H,W,3); InputError where the clip ends before."""
        while self.index < index:
            frame = next(self.frames, None)
            if frame is None:
                raise InputError(
                    "{path} ends after {value} frames and another clip goes on",
                    remedy="give clips of the same length",
                    path=self.clip.path,
                    value=self.index + 1,
                )
            self.index += 1
            if self.index == index:
                large = resize_bicubic(frame.pixels[None], *self.size)[0]
                self.picture = as_bytes(large)
        return self.picture


def compare(
    sources: Sequence[str | Path],
    target: str | Path,
    look: Look | None = None,
    labels: Sequence[str] = (),
    on_frame: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a comparison of two or more clips to ``target`` and return its path.

    A video for .mp4, .mkv and .mov, one sheet for .png and .jpg (a profile is always a sheet).
    Raises :class:`OptionError`, :class:`InputError` or :class:`OutputError`.
    """
    look, path = look or Look(), Path(target)
    clips = [probe(source) for source in sources]
    names = list(labels) or [clip.path.stem for clip in clips]
    _check(clips, names, path, look)
    num_frames = _common_length(clips)
    size = (max(clip.height for clip in clips), max(clip.width for clip in clips))
    if look.row is not None and not 0 <= look.row < size[0]:
        raise OptionError(
            "{option} is {value!r}",
            remedy=f"the picture has rows 0 to {size[0] - 1}",
            option=Setting("row"),
            value=look.row,
        )
    if look.frame is not None and not 0 <= look.frame < num_frames:
        raise OptionError(
            "{option} is {value!r}",
            remedy=f"the clips have frames 0 to {num_frames - 1}",
            option=Setting("frame"),
            value=look.frame,
        )
    with _playing(clips, size) as playing:
        if look.mode == "profile":
            sheet = _profile(playing, names, num_frames, look, on_frame)
            write_whole(path, lambda part: Image.fromarray(sheet).save(part))
            return path
        with needs_extra("evaluate", "a comparison"):
            import moviepy  # noqa: F401  (the functions below import what they need from it)
        fps = float(clips[0].fps)
        video = _laid_out(playing, names, look, fps, num_frames, on_frame)
        if path.suffix.lower() in SHEET_SUFFIXES:
            index = num_frames // 2 if look.frame is None else look.frame
            write_whole(path, lambda part: video.save_frame(str(part), t=(index + 0.5) / fps))
        else:
            write_whole(path, lambda part: _write_video(video, part, fps))
    return path


def _check(clips: list[ClipInfo], names: list[str], path: Path, look: Look) -> None:
    if len(clips) < 2:
        raise OptionError("only one clip is given; give two or more")
    if len(names) != len(clips):
        raise OptionError(
            "{value} labels for {count} clips",
            remedy="give one for each",
            value=len(names),
            count=len(clips),
        )
    if look.mode == "wipe" and len(clips) != 2:
        raise OptionError(f"a wipe shows two clips and {len(clips)} are given; choose another mode")
    suffixes = SHEET_SUFFIXES if look.mode == "profile" else (*VIDEO_SUFFIXES, *SHEET_SUFFIXES)
    if path.suffix.lower() not in suffixes:
        raise OptionError(
            "{option} is {path}",
            remedy=f"give a name with {', '.join(suffixes)}",
            option=Setting("output"),
            path=path,
        )
    check_output(path, [clip.path for clip in clips])


def _common_length(clips: list[ClipInfo]) -> int:
    lengths = {clip.path.name: clip.num_frames for clip in clips if clip.num_frames}
    if not lengths:
        raise InputError(
            "{path} does not say how long it is",
            remedy="convert it to .mp4 first",
            path=clips[0].path,
        )
    if len(set(lengths.values())) > 1:
        raise InputError(
            "clips have different numbers of frames ({found})",
            remedy="give clips of the same length",
            found=", ".join(f"{name} {count}" for name, count in lengths.items()),
        )
    return next(iter(lengths.values()))


@contextmanager
def _playing(clips: list[ClipInfo], size: tuple[int, int]) -> Iterator[list[Playing]]:
    with ExitStack() as stack:
        yield [Playing(stack.enter_context(read_frames(clip)), clip, size) for clip in clips]


def _laid_out(
    playing: list[Playing],
    names: list[str],
    look: Look,
    fps: float,
    num_frames: int,
    on_frame: Callable[[int, int], None] | None,
) -> Any:
    """The moviepy clip for a mode."""
    from moviepy import CompositeVideoClip, VideoClip, clips_array

    duration = num_frames / fps

    def clip(draw: Callable[[int], Picture]) -> Any:
        last = num_frames - 1
        return VideoClip(lambda t: draw(min(int(t * fps + 1e-6), last)), duration=duration)

    def labelled(video: Any, name: str) -> Any:
        label = _label(name, video.h).with_duration(duration)
        return CompositeVideoClip([video, label], size=video.size).with_duration(duration)

    def tell(index: int) -> Picture:
        if on_frame is not None:
            on_frame(index + 1, num_frames)
        return playing[0].at(index)

    first = clip(tell)
    videos = [first, *(clip(one.at) for one in playing[1:])]
    if look.mode == "wipe":
        return _wipe(videos, names, duration)
    cells = [labelled(video, name) for video, name in zip(videos, names, strict=True)]
    if look.mode == "zoom":
        box = _fitting(look.box, playing[0].size)
        below = [clip(_part_of(one, box)) for one in playing]
        marked = [video.transform(lambda get, t: _with_box(get(t), box)) for video in cells]
        return _even(clips_array([marked, below]))
    if look.mode == "difference":
        for one, name in zip(playing[1:], names[1:], strict=True):
            seen = clip(_difference_of(playing[0], one, look.gain))
            cells.append(labelled(seen, f"{name} - {names[0]}, x{look.gain:g}"))
    columns = min(len(cells), COLUMNS)
    while len(cells) % columns:
        cells.append(clip(lambda index: np.zeros_like(playing[0].picture)))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return _even(clips_array(rows))


def _wipe(videos: list[Any], names: list[str], duration: float) -> Any:
    """The second clip to the right of a line that sweeps across and back."""
    from moviepy import CompositeVideoClip, VideoClip

    width, height = videos[0].size

    def place(t: float) -> int:
        column: int = round(width * (0.5 - 0.45 * float(np.cos(2 * np.pi * t / WIPE_SECONDS))))
        return column

    def mask(t: float) -> NDArray[np.float64]:
        shown = np.zeros((height, width))
        shown[:, place(t) :] = 1
        return shown

    right = videos[1].with_mask(VideoClip(mask, is_mask=True, duration=duration))
    thick = max(2, width // 300)
    line = VideoClip(lambda t: np.full((height, thick, 3), LINE, np.uint8), duration=duration)
    line = line.with_position(lambda t: (min(place(t), width - thick), 0))
    labels = [_label(name, height).with_duration(duration) for name in names]
    labels[1] = labels[1].with_position((width - labels[1].w, 0))
    parts = [videos[0], right, line, *labels]
    return _even(CompositeVideoClip(parts, size=(width, height)).with_duration(duration))


def _label(name: str, height: int) -> Any:
    from moviepy import TextClip

    size = max(11, height // LABEL_SHARE)
    return TextClip(
        text=name,
        font_size=size,
        color="white",
        bg_color="black",
        margin=(size // 2, size // 3, size // 2, size),
    )


def _even(video: Any) -> Any:
    """Padded to even sides, which 4:2:0 needs."""
    from moviepy import CompositeVideoClip

    width, height = video.size
    size = (width + width % 2, height + height % 2)
    if size == (width, height):
        return video
    return CompositeVideoClip([video.with_position((0, 0))], size=size)


def _fitting(box: Box | None, size: tuple[int, int]) -> Box:
    """The box asked for, or the middle; OptionError where it leaves the picture."""
    height, width = size
    if box is None:
        part = (max(8, width // 4), max(8, height // 4))
        return Box((width - part[0]) // 2, (height - part[1]) // 2, *part)
    inside = box.left >= 0 and box.top >= 0 and box.width > 0 and box.height > 0
    if not inside or box.left + box.width > width or box.top + box.height > height:
        raise OptionError(
            "{option} is {value} and the picture {size}",
            remedy="give left,top,width,height inside it",
            option=Setting("box"),
            value=f"{box.left},{box.top},{box.width},{box.height}",
            size=f"{width}x{height}",
        )
    return box


def _part_of(one: Playing, box: Box) -> Callable[[int], Picture]:
    """Draws the box as wide as the picture; pixels stay square: they are what one looks at."""

    def draw(index: int) -> Picture:
        picture = one.at(index)
        part = picture[box.top : box.top + box.height, box.left : box.left + box.width]
        width = picture.shape[1]
        height = max(1, round(width * box.height / box.width))
        large = Image.fromarray(part).resize((width, height), Image.Resampling.NEAREST)
        return np.asarray(large)

    return draw


def _with_box(picture: Picture, box: Box) -> Picture:
    drawn = picture.copy()
    thick = max(1, picture.shape[1] // 300)
    rows = slice(box.top, box.top + box.height)
    columns = slice(box.left, box.left + box.width)
    drawn[rows, columns] = LINE
    inner = (
        slice(box.top + thick, box.top + box.height - thick),
        slice(box.left + thick, box.left + box.width - thick),
    )
    drawn[inner] = picture[inner]
    return drawn


def _difference_of(first: Playing, other: Playing, gain: float) -> Callable[[int], Picture]:
    """Draws mid-grey plus the exaggerated difference, so equal pixels are grey."""

    def draw(index: int) -> Picture:
        away = gain * (other.at(index).astype(np.float32) - first.at(index))
        return (128 + away).clip(0, 255).astype(np.uint8)

    return draw


def _profile(
    playing: list[Playing],
    names: list[str],
    num_frames: int,
    look: Look,
    on_frame: Callable[[int, int], None] | None,
) -> Picture:
    """A row of pixels of each clip over time, time downwards, the row marked in the frame above."""
    row = playing[0].size[0] // 2 if look.row is None else look.row
    columns: list[list[Picture]] = [[] for _ in playing]
    tops: list[Picture] = []
    for index in range(num_frames):
        for one, column in zip(playing, columns, strict=True):
            picture = one.at(index)
            if not index:
                shown = picture.copy()
                shown[row] = LINE
                tops.append(shown)
            column.append(picture[row].copy())
        if on_frame is not None:
            on_frame(index + 1, num_frames)
    repeat = max(1, 240 // num_frames)  # a short clip would be a thin strip
    cells = []
    for top, column, name in zip(tops, columns, names, strict=True):
        label = _label(name, top.shape[0]).get_frame(0)[:, : top.shape[1]]
        top[: label.shape[0], : label.shape[1]] = label
        cells.append(np.concatenate([top, np.repeat(np.stack(column), repeat, axis=0)]))
    gap = np.full((cells[0].shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([part for cell in cells for part in (cell, gap)][:-1], axis=1)


def _write_video(video: Any, part: Path, fps: float) -> None:
    video.write_videofile(
        str(part),
        fps=fps,
        codec="libx264",
        audio=False,
        preset="medium",
        ffmpeg_params=["-crf", "14", "-pix_fmt", "yuv420p", "-movflags", "+faststart"],
        logger=None,
    )
