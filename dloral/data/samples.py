"""Training samples from photographs and videos: how one is drawn.

A sample is a clip of T frames (a still: one frame) and its degraded copy. From a photograph it is
made by a moving camera, with exact flow (:mod:`dloral.data.motion`); from a video it is T
consecutive frames without a cut, and the flow is unknown. Sample ``i`` is drawn from ``(seed, i)``
alone: no worker count, order or cache changes it. A source that turns out to be damaged is skipped
for the next one, with a warning.
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

from dloral.data.degradation import DegradationConfig, degrade_clip, sample_degradation
from dloral.data.motion import MotionConfig, sample_clip
from dloral.data.sources import Sources, Window
from dloral.data.spec import ClipSpec
from dloral.errors import InputError
from dloral.frames.scenes import CutDetector
from dloral.video.images import load_image
from dloral.video.reader import read_frames

CANDIDATES = 6
LEAST_REDUCED_SIDE = 520
CACHE_BYTES = 1 << 30

Pixels = NDArray[np.uint8]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """hq_frames (T,S,S,3), lq_frames (T,S/scale,S/scale,3), uint8 RGB; flow (T-1,2,S,S), current to
    previous in pixels (dx, dy), None if unknown; ``source``: the file that they were read from."""

    hq_frames: Pixels
    lq_frames: Pixels
    flow: NDArray[np.float32] | None
    source: Path


def video_share(sources: Sources, spec: ClipSpec) -> float:
    """The share of samples from videos, 0 to 1."""
    if not (sources.photos and sources.windows):
        return float(not sources.photos)
    return 0.5 if spec.video_share is None else spec.video_share


def source_of(sources: Sources, spec: ClipSpec, index: int) -> tuple[str, int]:
    """Which source sample ``index`` starts from: ("video" or "photo", number in its list)."""
    share = video_share(sources, spec)
    videos_before = floor(index * share)
    if floor((index + 1) * share) > videos_before:
        places = len(sources.windows)
        return "video", videos_before * _stride(places) % places
    return "photo", (index - videos_before) % len(sources.photos)


def _stride(count: int) -> int:
    """A step that visits all of ``count`` places and spreads a few visits over the whole range:
    near the golden section, coprime to ``count``."""
    step = round(count * 0.618)
    while gcd(step, count) > 1:
        step += 1
    return step


def draw_sample(sources: Sources, spec: ClipSpec, index: int) -> Sample:
    """Sample ``index``: the same wherever and whenever it is drawn."""
    rng = np.random.default_rng((spec.seed, index))
    kind, number = source_of(sources, spec, index)
    if kind == "video":
        source, frames = _from_video(sources.windows, number, spec, rng)
        flow = None
    else:
        source, frames, flow = _from_photo(sources.photos, number, spec, rng)
    frames, flow = _positioned(frames, flow, rng, spec.turned)
    draw = sample_degradation(rng, DegradationConfig(scale=spec.scale))
    lq_frames = degrade_clip([frame.astype(np.float32) / 255 for frame in frames], draw, rng)
    return Sample(np.ascontiguousarray(frames), lq_frames, flow, source)


def _positioned(
    frames: Pixels, flow: NDArray[np.float32] | None, rng: np.random.Generator, turned: bool
) -> tuple[Pixels, NDArray[np.float32] | None]:
    """Mirrored or not; with ``turned``, also upside down or not, and transposed or not."""
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
    photos: Sequence[Path], number: int, spec: ClipSpec, rng: np.random.Generator
) -> tuple[Path, Pixels, NDArray[np.float32] | None]:
    reduction = int(rng.integers(len(spec.photo_reductions)))
    path, photo = _part_of_photo(photos, number, reduction, spec, rng)
    if spec.frames == 1:
        return path, photo[None], None
    motion = MotionConfig()
    foreground = None
    if rng.random() < motion.foreground_probability:
        other = int(rng.integers(len(photos)))
        _, foreground = _part_of_photo(photos, other, -1, spec, rng)
    clip = sample_clip(photo, foreground, spec.frames, spec.size, rng, motion)
    return path, clip.frames, clip.flow


def _part_of_photo(
    photos: Sequence[Path],
    number: int,
    reduction: int,
    spec: ClipSpec,
    rng: np.random.Generator,
) -> tuple[Path, Pixels]:
    """``size`` pixels for a still; twice that, if available, for a camera to move in.

    Of photograph ``number``, or of the next one that can be read.
    """
    for path in (*photos[number:], *photos[:number]):
        if path in _damaged:
            continue
        try:
            reductions = spec.photo_reductions
            photo = _cache.get(
                (path, reductions[reduction]),
                partial(reduced, path, reductions[reduction], reductions[0]),
            )
        except InputError as error:
            _pass_over(path, error)
            continue
        room = spec.size if spec.frames == 1 else 2 * spec.size
        return path, photo[sharp_place(photo, room, rng)]
    raise InputError(f"none of {len(photos)} photographs can be read; {photos[0]} is one of them")


def _from_video(
    windows: Sequence[Window], number: int, spec: ClipSpec, rng: np.random.Generator
) -> tuple[Path, Pixels]:
    """A crop of window ``number``, or of the next one that is whole and has no cut."""
    for candidate in (*windows[number:], *windows[:number]):
        path = candidate.clip.path
        key = (path, candidate.start, spec.frames, spec.video_reduction)
        make = partial(window_frames, candidate, spec.frames, spec.video_reduction)
        try:
            frames = _cache.get(key, make)
        except InputError as error:
            _pass_over(path, error)
            continue
        if len(frames) == spec.frames and not has_cut(frames):
            place = sharp_place(frames[spec.frames // 2], spec.size, rng)
            return path, frames[(slice(None), *place)]
    raise InputError(
        f"none of {len(windows)} places in the videos has {spec.frames} frames without a cut; "
        "give longer shots or fewer frames a clip"
    )


_damaged: set[Path] = set()  # per process; affects only speed, no sample


def _pass_over(path: Path, error: InputError) -> None:
    if path not in _damaged:
        log.warning("passed over: %s", error)
    _damaged.add(path)


def window_frames(window: Window, num_frames: int, reduction: int = 1) -> Pixels:
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
    in proportion to their fine detail."""
    height, width = (min(length, side) for length in picture.shape[:2])
    places, energies = [], []
    for _ in range(CANDIDATES):
        top = rng.integers(picture.shape[0] - height + 1)
        left = rng.integers(picture.shape[1] - width + 1)
        place = (slice(top, top + height), slice(left, left + width))
        grey = cv2.cvtColor(picture[place], cv2.COLOR_RGB2GRAY)
        places.append(place)
        # A little for every place: skies and walls must be seen too.
        energies.append(float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean()) + 0.3)
    return places[rng.choice(CANDIDATES, p=np.array(energies) / sum(energies))]


def load_photo(path: Path) -> Pixels:
    """Upright RGB (H,W,3); raises :class:`InputError`."""
    return load_image(path).mul_(255).round_().byte().permute(1, 2, 0).contiguous().numpy()


def reduced(path: Path, factor: float, least_factor: float = 1.0) -> Pixels:
    """The photograph, upright RGB, ``factor`` times smaller (less if too little would remain)."""
    photo = load_photo(path)
    if min(photo.shape[:2]) / factor < LEAST_REDUCED_SIDE:
        factor = least_factor
    if factor == 1:
        return photo
    small = cv2.resize(photo, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)


class PixelCache:
    """Keeps the most recently used, up to ``limit`` bytes: decoding a photograph for every crop
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


_cache = PixelCache(CACHE_BYTES)  # per process: each worker has its own


def as_frames(pixels: Pixels) -> Tensor:
    """uint8 (...,H,W,3) -> (...,3,H,W) in [0, 1]."""
    return torch.from_numpy(pixels).movedim(-1, -3).contiguous().float() / 255
