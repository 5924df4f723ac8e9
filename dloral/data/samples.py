"""Training samples from photographs and videos: how one is drawn.

A sample is a clip of T frames (a still: one frame) and its degraded copy. From a photograph it is
made by a moving camera, with exact flow (:mod:`dloral.data.motion`); from a video it is T
consecutive frames without a cut between them, and the flow is not known. Sample ``i`` is drawn
from ``(seed, i)`` alone: no worker count, order or cache changes it. A source that turns out to be
damaged is passed over for the next one, with a warning.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import floor, gcd
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dloral.data.degradation import degrade_clip, sample_degradation
from dloral.data.motion import MotionConfig, sample_clip
from dloral.data.sources import REDUCTIONS, VIDEO_REDUCTION, Sources, Window
from dloral.errors import InputError, OptionError
from dloral.frames.resize import LATENT_STRIDE
from dloral.frames.scenes import CutDetector
from dloral.video.images import load_image
from dloral.video.reader import read_frames

CANDIDATES = 6
LEAST_REDUCED_SIDE = 520
CACHE_BYTES = 1 << 30

Pixels = NDArray[np.uint8]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleConfig:
    """``frames`` frames of ``size`` pixels square; every 1 / ``video_share``-th sample is from a
    video, the others from photographs. Photographs are first made smaller by one of
    ``photo_reductions``, videos by ``video_reduction``. Samples are mirrored sideways or not, and
    with ``turned`` brought into any of the eight positions of a square."""

    frames: int = 1
    size: int = 256
    seed: int = 0
    scale: int = 4
    video_share: float = 0.0
    photo_reductions: tuple[float, ...] = REDUCTIONS
    video_reduction: int = VIDEO_REDUCTION
    turned: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise OptionError(f"frames is {self.frames}; give 1 for stills, 2 or more for clips")
        if self.size < 1 or self.size % LATENT_STRIDE:
            raise OptionError(f"size is {self.size}; give a multiple of {LATENT_STRIDE}")
        if not 0 <= self.video_share <= 1:
            raise OptionError(f"video share is {self.video_share}; give a number from 0 to 1")
        if not self.photo_reductions or min(*self.photo_reductions, self.video_reduction, 9) < 1:
            raise OptionError("reductions are factors of 1 or more; give at least one")


@dataclass(frozen=True)
class Sample:
    """hq_frames (T,S,S,3), lq_frames (T,S/scale,S/scale,3), uint8 RGB; flow (T-1,2,S,S) float32,
    current to previous in pixels (dx, dy), None where it is not known."""

    hq_frames: Pixels
    lq_frames: Pixels
    flow: NDArray[np.float32] | None


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
    frames, flow = _positioned(frames, flow, rng, config.turned)
    draw = sample_degradation(rng)
    lq_frames = degrade_clip([frame.astype(np.float32) / 255 for frame in frames], draw, rng)
    return Sample(np.ascontiguousarray(frames), lq_frames, flow)


def _positioned(
    frames: Pixels, flow: NDArray[np.float32] | None, rng: np.random.Generator, turned: bool
) -> tuple[Pixels, NDArray[np.float32] | None]:
    """Mirrored or not; with ``turned``, also upside down or not, and rows for columns or not."""
    if rng.random() < 0.5:
        frames = frames[:, :, ::-1]
        flow = None if flow is None else flow[..., ::-1] * np.array([-1, 1])[:, None, None]
    if turned and rng.random() < 0.5:
        frames = frames[:, ::-1]
        flow = None if flow is None else flow[..., ::-1, :] * np.array([1, -1])[:, None, None]
    if turned and rng.random() < 0.5:
        frames = frames.swapaxes(1, 2)
        flow = None if flow is None else flow.swapaxes(2, 3)[:, ::-1]
    return frames, flow


def _from_photo(
    photos: Sequence[Path], number: int, config: SampleConfig, rng: np.random.Generator
) -> tuple[Pixels, NDArray[np.float32] | None]:
    reduction = int(rng.integers(len(config.photo_reductions)))
    photo = _part_of_photo(photos, number, reduction, config, rng)
    if config.frames == 1:
        return photo[None], None
    motion = MotionConfig()
    foreground = None
    if rng.random() < motion.foreground_probability:
        other = int(rng.integers(len(photos)))
        foreground = _part_of_photo(photos, other, -1, config, rng)
    clip = sample_clip(photo, foreground, config.frames, config.size, rng, motion)
    return clip.frames, clip.flow


def _part_of_photo(
    photos: Sequence[Path],
    number: int,
    reduction: int,
    config: SampleConfig,
    rng: np.random.Generator,
) -> Pixels:
    """``size`` pixels for a still; twice that, where there is as much, for a camera to move in.

    Of photograph ``number``, or of the next one that can be read.
    """
    for path in (*photos[number:], *photos[:number]):
        if path in _damaged:
            continue
        try:
            reductions = config.photo_reductions
            photo = _cache.get(
                (path, reductions[reduction]),
                partial(reduced, path, reductions[reduction], reductions[0]),
            )
        except InputError as error:
            _pass_over(path, error)
            continue
        room = config.size if config.frames == 1 else 2 * config.size
        return photo[sharp_place(photo, room, rng)]
    raise InputError(f"none of {len(photos)} photographs can be read; {photos[0]} is one of them")


def _from_video(
    windows: Sequence[Window], number: int, config: SampleConfig, rng: np.random.Generator
) -> Pixels:
    """A crop of the window ``number``, or of the next one that is whole and has no cut in it."""
    for candidate in (*windows[number:], *windows[:number]):
        path = candidate.clip.path
        key = (path, candidate.start, config.frames, config.video_reduction)
        make = partial(window_frames, candidate, config.frames, config.video_reduction)
        try:
            frames = _cache.get(key, make)
        except InputError as error:
            _pass_over(path, error)
            continue
        if len(frames) == config.frames and not has_cut(frames):
            place = sharp_place(frames[config.frames // 2], config.size, rng)
            return frames[(slice(None), *place)]
    raise InputError(
        f"none of {len(windows)} places in the videos has {config.frames} frames without a cut; "
        "give longer shots or fewer frames a clip"
    )


_damaged: set[Path] = set()  # of this process; what it holds changes no sample, only the time


def _pass_over(path: Path, error: InputError) -> None:
    if path not in _damaged:
        log.warning("passed over: %s", error)
    _damaged.add(path)


def window_frames(window: Window, num_frames: int, reduction: int = VIDEO_REDUCTION) -> Pixels:
    """Up to ``num_frames`` frames from the window's start, reduced: (T,h,w,3) RGB."""
    width, height = (side // reduction for side in (window.clip.width, window.clip.height))
    with read_frames(window.clip, start=window.start) as frames:
        pixels = [frame.pixels.permute(1, 2, 0).numpy() for frame in islice(frames, num_frames)]
    small = [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pixels]
    return np.round(255 * np.array(small)).astype(np.uint8)


def has_cut(frames: Pixels) -> bool:
    """Whether the scene changes between two consecutive frames of (T,H,W,3)."""
    cuts = CutDetector()
    begins = [cuts.begins(torch.from_numpy(frame).permute(2, 0, 1) / 255) for frame in frames]
    return any(begins[1:])  # the first frame always begins a scene


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


def reduced(path: Path, factor: float, least_factor: float = REDUCTIONS[0]) -> Pixels:
    """The photograph, upright RGB, ``factor`` times smaller (less where too little would stay)."""
    photo = load_image(path).mul_(255).round_().byte().permute(1, 2, 0).contiguous().numpy()
    if min(photo.shape[:2]) / factor < LEAST_REDUCED_SIDE:
        factor = least_factor
    if factor == 1:
        return photo
    small = cv2.resize(photo, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)


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
            "hq_frames": as_frames(sample.hq_frames),
            "lq_frames_small": as_frames(sample.lq_frames),
        }
        only_photos = not (self.sources.windows and self.config.video_share)
        if sample.flow is not None and only_photos:
            item["flow"] = torch.from_numpy(np.ascontiguousarray(sample.flow, np.float32))
        return item


def as_frames(pixels: Pixels) -> Tensor:
    """uint8 (...,H,W,3) -> (...,3,H,W) in [0, 1]."""
    return torch.from_numpy(pixels).movedim(-1, -3).contiguous().float() / 255
