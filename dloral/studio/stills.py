"""Stills of a clip and of a result: the thumbnail strip, and exact before/after frame pairs."""

import tempfile
import zipfile
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from dloral.frames.resize import resize_bicubic
from dloral.studio.animated import frame_shown, is_gif
from dloral.studio.pictures import jpeg_of, png_of, stacked, within
from dloral.studio.records import Result
from dloral.studio.sources import Sources, frame_bytes, reading_bytes
from dloral.video.images import load_image
from dloral.video.probe import ClipInfo
from dloral.video.reader import read_frames

THUMBNAIL_HEIGHT = 64
"""Pixels; twice the displayed height, for high-density screens."""

_PAIR_COPIES = 5
"""Copies of a result's frame in memory: enlarged, restored, both stacked, and as a picture."""


def thumbnails(
    clip: ClipInfo,
    count: int,
    start: float = 0,
    duration: float | None = None,
    sources: Sources | None = None,
) -> bytes:
    """``count`` small frames, evenly spaced, side by side in one JPEG: from the whole clip, or part
    of it (seconds; None: to its end). ``sources``: where all visitors' calls wait for memory;
    ResourceError if this machine has too little for a frame."""
    sources = sources or Sources()
    all_of_it = Fraction(0) if clip.kind == "image" else clip.duration or Fraction(0)
    first = min(Fraction(max(start, 0)), all_of_it)
    length = all_of_it - first if duration is None else Fraction(max(duration, 0))
    width = max(1, min(round(THUMBNAIL_HEIGHT * clip.width / clip.height), 4 * THUMBNAIL_HEIGHT))
    pictures: list[Tensor] = []
    for index in range(1 if clip.kind == "image" else count):
        time = first + min(length, all_of_it - first) * Fraction(2 * index + 1, 2 * count)
        with sources.held_back(clip, reading_bytes(clip)):  # for each frame: lets others in between
            small = _small_at(clip, time)
        if small is not None:
            pictures.append(resize_bicubic(small[None], THUMBNAIL_HEIGHT, width)[0])
        elif pictures:
            pictures.append(pictures[-1])
    if not pictures:
        pictures = [torch.full((3, THUMBNAIL_HEIGHT, width), 0.5)]
    return jpeg_of(torch.cat(pictures, dim=2), quality=80)


def _small_at(clip: ClipInfo, time: Fraction) -> Tensor | None:
    with read_frames(clip, start=time) as frames:
        frame = next(frames, None)
        return None if frame is None else within(frame.seen, 4 * THUMBNAIL_HEIGHT)


def still(result: Result, index: int, sources: Sources | None = None) -> bytes:
    """Frame ``index`` of a result below its bicubic enlargement, as a PNG: every pixel, without
    the compression loss of the viewer's clip. ``sources``: as in :func:`thumbnails`."""
    with _held_back(result, sources):
        return png_of(stacked(*still_pair(result, max(0, min(index, len(result.times) - 1)))))


def still_pair(result: Result, index: int) -> tuple[Tensor, Tensor]:
    """The plain enlargement of frame ``index`` and the restored frame, each (3,H,W) in [0, 1]."""
    time = result.times[index]
    lq_frame = resize_bicubic(frame_at(result.clip, time)[None], *result.size)[0]
    return lq_frame, _restored(result, index, time)


def before_and_after(result: Result, sources: Sources | None = None) -> bytes:
    """A small JPEG of the middle frame: the left half before, the right half after. ``sources``: as
    in :func:`thumbnails`."""
    with _held_back(result, sources):
        pair = still_pair(result, len(result.times) // 2)
        before, after = (within(frame, 4 * THUMBNAIL_HEIGHT) for frame in pair)
    half = after.shape[2] // 2
    joined = torch.cat([before[:, :, :half], after[:, :, half:]], dim=2)
    joined[:, :, half : half + 2] = 1
    return jpeg_of(joined, quality=80)


def _held_back(result: Result, sources: Sources | None) -> AbstractContextManager[None]:
    needed = reading_bytes(result.clip) + _PAIR_COPIES * frame_bytes(*result.size)
    return (sources or Sources()).held_back(result.clip, needed)


def frame_at(source: ClipInfo | Path, time: Fraction) -> Tensor:
    """The frame that begins at ``time``, (3,H,W) in [0, 1]; containers round times to 1 ms."""
    with read_frames(source, start=max(time - Fraction(1, 1000), Fraction(0))) as frames:
        return next(frames).seen


def _restored(result: Result, index: int, time: Fraction) -> Tensor:
    if result.file.suffix == ".png":
        return load_image(result.file)
    if result.file.suffix == ".zip":
        with (
            zipfile.ZipFile(result.file) as archive,
            tempfile.TemporaryDirectory(dir=result.file.parent) as folder,  # calls may overlap
        ):
            return load_image(Path(archive.extract(f"{index:08d}.png", folder)))
    shown_at = frame_shown if is_gif(result.file) else frame_at
    return shown_at(result.file, time - result.times[0])
