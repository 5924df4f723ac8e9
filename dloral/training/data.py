"""Training samples from photographs and videos: what is found, and how one sample is drawn.

A sample is a clip of T frames (a still: one frame) and its degraded copy. From a photograph it is
made by a moving camera, with exact flow (:mod:`dloral.training.motion`); from a video it is T
consecutive frames without a cut between them, and the flow is not known. Sample ``i`` is drawn
from ``(seed, i)`` alone: no worker count, order or cache changes it.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import islice
from math import floor, gcd
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from dloral.errors import InputError, OptionError
from dloral.frames.degradation import degrade_clip, sample_degradation
from dloral.frames.resize import LATENT_STRIDE
from dloral.training.motion import MotionConfig, sample_clip
from dloral.video.probe import ClipInfo, probe
from dloral.video.reader import read_frames

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v")
REDUCTIONS = (2.0, 3.2)
"""Photographs are made smaller first: at full size they are soft from JPEG and demosaicing."""

VIDEO_REDUCTION = 2
"""Compressed video is halved, which hides most of its own artefacts."""

CANDIDATES = 6
LEAST_REDUCED_SIDE = 520
CACHE_BYTES = 1 << 30
THUMBNAIL = (32, 18)
CUT_DIFFERENCE = 20.0
"""Mean change of a 32 x 18 thumbnail, in grey levels of 255, that is taken for a scene change."""

Pixels = NDArray[np.uint8]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleConfig:
    """``frames`` frames of ``size`` pixels square; every 1 / ``video_share``-th sample is from a
    video, the others from photographs."""

    frames: int = 1
    size: int = 256
    seed: int = 0
    scale: int = 4
    video_share: float = 0.0

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise OptionError(f"frames is {self.frames}; give 1 for stills, 2 or more for clips")
        if self.size < 1 or self.size % LATENT_STRIDE:
            raise OptionError(f"size is {self.size}; give a multiple of {LATENT_STRIDE}")
        if not 0 <= self.video_share <= 1:
            raise OptionError(f"video share is {self.video_share}; give a number from 0 to 1")


@dataclass(frozen=True)
class Window:
    """A place in a video where frames are taken from, ``start`` seconds from its first frame."""

    clip: ClipInfo
    start: Fraction


@dataclass(frozen=True)
class VideoSpan:
    """Which part of every video is used, in seconds, with a window every ``spacing``."""

    first: Fraction = Fraction(0)
    end: Fraction | None = None
    spacing: Fraction = Fraction(5, 3)


@dataclass(frozen=True)
class Sources:
    """What can be used, and what was left out with the reason."""

    photos: tuple[Path, ...] = ()
    windows: tuple[Window, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    def files(self) -> Iterator[Path]:
        """Every file or frame folder once, in order."""
        yield from self.photos
        yield from dict.fromkeys(window.clip.path for window in self.windows)


@dataclass(frozen=True)
class Sample:
    """hq_frames (T,S,S,3), lq_frames (T,S/scale,S/scale,3), uint8 RGB; flow (T-1,2,S,S) float32,
    current to previous in pixels (dx, dy), None where it is not known."""

    hq_frames: Pixels
    lq_frames: Pixels
    flow: NDArray[np.float32] | None


def list_sources(
    photo_folders: Iterable[Path],
    exclude: Sequence[str] = (),
    size: int = 256,
    *,
    only: Sequence[str] = (),
    videos: Iterable[Path] = (),
    span: VideoSpan | None = None,
) -> Sources:
    """Every photograph below ``photo_folders`` and every video or frame folder at or below
    ``videos``, in name order.

    ``exclude`` and ``only`` are parts of names. Each file that cannot be used is logged as a
    warning and listed with its reason; raises :class:`InputError` if nothing is left.
    """
    photo_folders, videos = list(photo_folders), list(videos)
    left_out: dict[str, str] = {}

    def wanted(path: Path, unusable: Callable[[Path], str]) -> bool:
        if any(word in path.name for word in exclude):
            left_out[path.name] = "excluded by name"
        elif only and not any(word in path.name for word in only):
            left_out[path.name] = "not among those named"
        elif reason := unusable(path):
            left_out[path.name] = reason
            log.warning("%s is left out: %s", path, reason)
        return path.name not in left_out

    found = (path for folder in photo_folders for path in sorted(folder.rglob("*")))
    photos = tuple(
        path
        for path in found
        if path.suffix.lower() in PHOTO_SUFFIXES and wanted(path, lambda p: _unusable(p, size))
    )
    windows: list[Window] = []

    def no_window(path: Path) -> str:
        try:
            found = _windows(probe(path), span or VideoSpan(), size)
        except InputError as error:
            return str(error)
        windows.extend(found)
        return "" if found else "nothing of it lies in the chosen span"

    for path in _video_paths(videos):
        wanted(path, no_window)
    if not photos and not windows:
        looked = ", ".join(map(str, [*photo_folders, *videos]))
        raise InputError(
            f"no usable source in {looked} ({len(left_out)} left out); give photographs "
            f"({', '.join(PHOTO_SUFFIXES)}) of {round(size * REDUCTIONS[0])} pixels a side or more,"
            f" or videos of {size * VIDEO_REDUCTION}"
        )
    return Sources(photos, tuple(windows), left_out)


def _unusable(path: Path, size: int) -> str:
    """Why a photograph cannot be used. The whole file is decoded: OpenCV fills what a truncated
    one lacks with grey and says nothing."""
    try:
        with Image.open(path) as photo:
            photo.load()
            least = round(size * REDUCTIONS[0])
            return f"smaller than {least} pixels a side" if min(photo.size) < least else ""
    except UnidentifiedImageError:
        return "not a readable picture"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "damaged, cut off or absurdly large"


def _video_paths(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if not place.is_dir():
            yield place
            continue
        for path in [place, *sorted(place.rglob("*"))]:
            if path.suffix.lower() in VIDEO_SUFFIXES or (path.is_dir() and _holds_frames(path)):
                yield path


def _holds_frames(folder: Path) -> bool:
    pictures = (p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
    return next(islice(pictures, 1, None), None) is not None


def _windows(clip: ClipInfo, span: VideoSpan, size: int) -> list[Window]:
    if min(clip.height, clip.width) // VIDEO_REDUCTION < size:
        raise InputError(
            f"{clip.path} is {clip.width}x{clip.height}; give videos of "
            f"{size * VIDEO_REDUCTION} pixels a side or more"
        )
    length = clip.duration or 0
    end = length if span.end is None else min(span.end, length)
    count = max(0, floor((end - span.first) / span.spacing))
    return [Window(clip, span.first + number * span.spacing) for number in range(count)]


def source_of(sources: Sources, config: SampleConfig, index: int) -> tuple[str, int]:
    """Which source sample ``index`` starts from: ("video" or "photo", number in its list)."""
    share = config.video_share if sources.photos else 1.0
    share = share if sources.windows else 0.0
    videos_before = floor(index * share)
    if floor((index + 1) * share) > videos_before:
        places = len(sources.windows)
        return "video", videos_before * _stride(places) % places
    return "photo", (index - videos_before) % len(sources.photos)


def _stride(count: int) -> int:
    """A step that visits all of ``count`` places, and spreads few visits over the whole of them:
    next to the golden section, coprime to ``count``."""
    step = round(count * 0.618)
    while gcd(step, count) > 1:
        step += 1
    return step


def draw_sample(sources: Sources, config: SampleConfig, index: int) -> Sample:
    """Sample ``index``: the same wherever and whenever it is drawn."""
    rng = np.random.default_rng((config.seed, index))
    kind, number = source_of(sources, config, index)
    if kind == "video":
        frames, flow = _from_video(sources.windows, number, config, rng), None
    else:
        frames, flow = _from_photo(sources.photos, number, config, rng)
    if rng.random() < 0.5:
        frames = frames[:, :, ::-1]
        flow = None if flow is None else flow[..., ::-1] * np.array([-1, 1])[:, None, None]
    draw = sample_degradation(rng)
    lq_frames = degrade_clip([frame.astype(np.float32) / 255 for frame in frames], draw, rng)
    return Sample(np.ascontiguousarray(frames), lq_frames, flow)


def _from_photo(
    photos: Sequence[Path], number: int, config: SampleConfig, rng: np.random.Generator
) -> tuple[Pixels, NDArray[np.float32] | None]:
    photo = _part_of_photo(photos[number], int(rng.integers(len(REDUCTIONS))), config, rng)
    if config.frames == 1:
        return photo[None], None
    motion = MotionConfig()
    foreground = None
    if rng.random() < motion.foreground_probability:
        foreground = _part_of_photo(photos[int(rng.integers(len(photos)))], 1, config, rng)
    clip = sample_clip(photo, foreground, config.frames, config.size, rng, motion)
    return clip.frames, clip.flow


def _part_of_photo(
    path: Path, reduction: int, config: SampleConfig, rng: np.random.Generator
) -> Pixels:
    """``size`` pixels for a still; twice that, where there is as much, for a camera to move in."""
    photo = _cache.get((path, reduction), lambda: reduced(path, REDUCTIONS[reduction]))
    room = config.size if config.frames == 1 else 2 * config.size
    return photo[sharp_place(photo, room, rng)]


def _from_video(
    windows: Sequence[Window], number: int, config: SampleConfig, rng: np.random.Generator
) -> Pixels:
    """A crop of the window ``number``, or of the next one that has no cut in it."""
    for candidate in (*windows[number:], *windows[:number]):
        key = (candidate.clip.path, candidate.start, config.frames)
        frames = _cache.get(key, partial(window_frames, candidate, config.frames))
        if len(frames) == config.frames and not has_cut(frames):
            place = sharp_place(frames[config.frames // 2], config.size, rng)
            return frames[(slice(None), *place)]
    raise InputError(
        f"none of {len(windows)} places in the videos has {config.frames} frames without a cut; "
        "give longer shots or fewer frames a clip"
    )


def window_frames(window: Window, num_frames: int) -> Pixels:
    """Up to ``num_frames`` frames from the window's start, reduced: (T,h,w,3) RGB."""
    width, height = (side // VIDEO_REDUCTION for side in (window.clip.width, window.clip.height))
    with read_frames(window.clip, start=window.start) as frames:
        pixels = [frame.pixels.permute(1, 2, 0).numpy() for frame in islice(frames, num_frames)]
    small = [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pixels]
    return np.round(255 * np.array(small)).astype(np.uint8)


def has_cut(frames: Pixels) -> bool:
    """Whether the scene changes between two consecutive frames of (T,H,W,3)."""
    small = [cv2.resize(frame, THUMBNAIL, interpolation=cv2.INTER_AREA) for frame in frames]
    changes = np.abs(np.diff(np.array(small, np.float32), axis=0)).mean(axis=(1, 2, 3))
    return bool((changes > CUT_DIFFERENCE).any())


def sharp_place(picture: Pixels, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Where to cut ``side`` pixels square (less where the picture ends), drawn from a few places
    by how much fine detail they hold."""
    height, width = (min(length, side) for length in picture.shape[:2])
    places, energies = [], []
    for _ in range(CANDIDATES):
        top = rng.integers(picture.shape[0] - height + 1)
        left = rng.integers(picture.shape[1] - width + 1)
        place = (slice(top, top + height), slice(left, left + width))
        grey = cv2.cvtColor(picture[place], cv2.COLOR_RGB2GRAY)
        places.append(place)
        # A little for everybody: skies and walls must be seen too.
        energies.append(float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean()) + 0.3)
    return places[rng.choice(CANDIDATES, p=np.array(energies) / sum(energies))]


def reduced(path: Path, factor: float) -> Pixels:
    """The photograph, upright RGB, ``factor`` times smaller (less where too little would stay)."""
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photo is None:
        raise InputError(f"{path} cannot be read any more; was it moved while it was in use?")
    if min(photo.shape[:2]) / factor < LEAST_REDUCED_SIDE:
        factor = REDUCTIONS[0]
    small = cv2.resize(photo, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1])


class PixelCache:
    """Keeps what was used last, up to ``limit`` bytes: decoding a photograph for every crop of it
    would take most of the time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._entries: OrderedDict[Hashable, Pixels] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Pixels]) -> Pixels:
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        pixels = self._entries[key] = make()
        self.held += pixels.nbytes
        while self.held > self.limit and len(self._entries) > 1:
            self.held -= self._entries.popitem(last=False)[1].nbytes
        return pixels


_cache = PixelCache(CACHE_BYTES)  # one a process: worker processes each have their own


class DLoRALDataset(Dataset[dict[str, Tensor]]):
    """``length`` samples for a DataLoader, drawn as they are asked for.

    Each is a dict: ``hq_frames`` (T,3,S,S) and ``lq_frames_small`` (T,3,S/scale,S/scale), float32
    in [0, 1]; and, where all samples are clips from photographs, ``flow`` (T-1,2,S,S).
    """

    def __init__(self, sources: Sources, config: SampleConfig, length: int) -> None:
        self.sources, self.config, self.length = sources, config, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        sample = draw_sample(self.sources, self.config, index)
        item = {
            "hq_frames": _floats(sample.hq_frames),
            "lq_frames_small": _floats(sample.lq_frames),
        }
        only_photos = not (self.sources.windows and self.config.video_share)
        if sample.flow is not None and only_photos:
            item["flow"] = torch.from_numpy(np.ascontiguousarray(sample.flow, np.float32))
        return item


def _floats(frames: Pixels) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous().float() / 255
