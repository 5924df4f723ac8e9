"""Photographs and film held on a device, and the clips cut from them there in batches.

The motion is that of :mod:`dloral.data.motion`, which makes one clip at a time, but without a CPU
core between source and network.

Legend: N clips, T frames, S pixels a side, cells of 8 pixels. Frames are stored as uint8 and used
as float32 RGB in [0, 1].
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dloral.data.motion import MotionConfig, camera_maps
from dloral.data.samples import has_cut, load_photo, window_frames
from dloral.data.sources import Window
from dloral.errors import InputError
from dloral.frames.resize import LATENT_STRIDE

REDUCTIONS = (1.0, 1.3, 1.7)
"""Every photograph is also there smaller: more kinds of texture from few pictures."""

FULL_SIZE = 2600
"""Pixels of the longer side above which a photograph is taken for a camera's full size, which is
soft from JPEG and demosaicing, and is halved first."""

STRIDE = 64
"""Pixels between the places where a crop may start."""

ROOM = 1.75
"""A camera moves over this many times the clip's side."""


class Pictures:
    """Photographs (3,H,W) and film clips (T,3,h,w), uint8 on ``device``.

    A place in a photograph is drawn in proportion to its fine detail, plus a little for smooth
    ones; in photographs with many places, each place is drawn less often than in small ones.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        film: Iterable[Tensor] | None,
        size: int,
        device: torch.device | str,
        film_share: float = 0.2,
    ) -> None:
        self.size, self.device = size, torch.device(device)
        self.film = [clip.to(device) for clip in (() if film is None else film)]
        self.film_share = film_share if self.film else 0.0
        with ThreadPoolExecutor() as threads:
            read = list(threads.map(load_photo, photos))
        self.photos = [torch.from_numpy(p).to(device).permute(2, 0, 1) for p in read]
        self.photos = [_smaller(p, 2) if max(p.shape) > FULL_SIZE else p for p in self.photos]
        self.photos += [_smaller(p, r) for r in REDUCTIONS[1:] for p in self.photos[: len(read)]]
        for clip in self.film:
            if min(clip.shape[-2:]) < size:
                raise InputError(
                    f"the film is {clip.shape[-1]}x{clip.shape[-2]}; give one of {size} pixels a "
                    "side or more, or a smaller size"
                )
        self._still_places = _places(self.photos, size)
        self._clip_places = _places(self.photos, round(ROOM * size))

    def stills(self, count: int, rng: np.random.Generator) -> Tensor:
        """(N,1,3,S,S) float."""
        films = int(rng.binomial(count, self.film_share))
        crops = [self._film(films, 1, rng)] if films else []
        if films < count:
            crops += [self._crops(self._still_places, self.size, count - films, rng)[:, None]]
        return torch.cat(crops)

    def clips(self, count: int, num_frames: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(N,T,3,S,S) float and flow (N,T-1,2,s,s) in cells; film's flow is unknown: NaN."""
        films = int(rng.binomial(count, self.film_share))
        parts = [self._moving_photos(count - films, num_frames, rng)] if films < count else []
        if films:
            cells = self.size // LATENT_STRIDE
            unknown = torch.full((films, num_frames - 1, 2, cells, cells), torch.nan)
            parts.append((self._film(films, num_frames, rng), unknown.to(self.device)))
        frames, flow = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return frames, flow

    def _moving_photos(
        self, count: int, num_frames: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        motion = MotionConfig()
        frames, flow = self._moved(count, num_frames, rng, motion)
        fronts = torch.from_numpy(rng.random(count) < motion.foreground_probability)
        if fronts.any():
            behind = (frames[fronts], flow[fronts])
            frames[fronts], flow[fronts] = self._in_front(*behind, rng, motion)
        return frames, flow

    def _moved(
        self, count: int, num_frames: int, rng: np.random.Generator, motion: MotionConfig
    ) -> tuple[Tensor, Tensor]:
        room = round(ROOM * self.size)
        regions = self._crops(self._clip_places, room, count, rng)
        cameras = batch_cameras(count, num_frames, self.size, room, rng, motion)
        return self._through(cameras, regions), self._flow(cameras)

    def _in_front(
        self, frames: Tensor, flow: Tensor, rng: np.random.Generator, motion: MotionConfig
    ) -> tuple[Tensor, Tensor]:
        """A second picture in front of each clip, behind a soft-edged mask that moves with it."""
        count, num_frames = frames.shape[:2]
        room = round(ROOM * self.size)
        noise = torch.from_numpy(rng.standard_normal((count, 1, 12, 12), np.float32))
        blob = F.interpolate(noise.to(self.device), (room, room), mode="bicubic")
        edge = blob.flatten(1).quantile(0.7, dim=1).view(-1, 1, 1, 1)
        masks = (0.5 + 4 * (blob - edge)).clamp(0, 1)
        regions = torch.cat([self._crops(self._clip_places, room, count, rng), masks], dim=1)
        cameras = batch_cameras(count, num_frames, self.size, room, rng, motion)
        layer = self._through(cameras, regions)
        front, mask = layer[:, :, :3], layer[:, :, 3:]
        ahead = F.avg_pool2d(mask[:, 1:].flatten(0, 1), LATENT_STRIDE) > 0.5
        ahead = ahead.unflatten(0, (count, num_frames - 1))
        return torch.lerp(frames, front, mask), torch.where(ahead, self._flow(cameras), flow)

    def _through(self, cameras: NDArray[np.float64], regions: Tensor) -> Tensor:
        """What cameras (N,T,3,3) see of regions (N,C,R,R): (N,T,C,S,S)."""
        count, num_frames = cameras.shape[:2]
        places = _project(self._matrices(cameras), self.size, 1)  # (N,T,S,S,2)
        grid = 2 * places / (regions.shape[-1] - 1) - 1
        seen = F.grid_sample(
            regions.repeat_interleave(num_frames, dim=0),
            grid.flatten(0, 1),
            "bicubic",
            padding_mode="reflection",
            align_corners=True,
        )
        return seen.clamp(0, 1).unflatten(0, (count, num_frames))

    def _flow(self, cameras: NDArray[np.float64]) -> Tensor:
        """From each frame to the one before, (N,T-1,2,s,s), in cells."""
        between = np.linalg.inv(cameras[:, :-1]) @ cameras[:, 1:]
        places = _project(self._matrices(between), self.size, LATENT_STRIDE)
        still = _cell_centres(self.size, LATENT_STRIDE, self.device)
        return ((places - still) / LATENT_STRIDE).movedim(-1, 2)

    def _matrices(self, cameras: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(cameras).float().to(self.device)

    def _crops(self, places: "_Places", side: int, count: int, rng: np.random.Generator) -> Tensor:
        chosen = rng.choice(len(places.rows), size=count, p=places.chances)
        shifts = rng.integers(STRIDE, size=(count, 2))
        crops = []
        for place, shift in zip(places.rows[chosen], shifts, strict=True):
            photo = self.photos[place[0]]
            top, left = (
                min(int(p + s), length - side)
                for p, s, length in zip(place[1:], shift, photo.shape[1:], strict=True)
            )
            crops.append(photo[:, top : top + side, left : left + side])
        return torch.stack(crops).float() / 255

    def _film(self, count: int, num_frames: int, rng: np.random.Generator) -> Tensor:
        crops = []
        for _ in range(count):
            clip = self.film[rng.integers(len(self.film))]
            start = rng.integers(len(clip) - num_frames + 1)
            top, left = (int(rng.integers(length - self.size + 1)) for length in clip.shape[-2:])
            crops.append(
                clip[start : start + num_frames, :, top : top + self.size, left : left + self.size]
            )
        return torch.stack(crops).float() / 255


@dataclass(frozen=True)
class _Places:
    """rows (P,3): photograph, top, left; chances (P,) sum to 1."""

    rows: NDArray[np.int64]
    chances: NDArray[np.float64]


def _smaller(photo: Tensor, reduction: float) -> Tensor:
    size = [round(side / reduction) for side in photo.shape[1:]]
    small = F.interpolate(photo[None].float(), size, mode="bicubic", antialias=True)
    return small[0].round().clamp(0, 255).byte()


def _places(photos: Iterable[Tensor], side: int) -> _Places:
    rows, chances = [], []
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    for index, photo in enumerate(photos):
        if min(photo.shape[1:]) < side + STRIDE:
            continue
        grey = photo.float().mean(dim=0)[None, None]
        edges = F.conv2d(grey, kernel.to(photo.device), padding=1).abs()
        energy = F.avg_pool2d(edges, side, STRIDE)[0, 0].cpu().numpy() + 0.3
        tops, lefts = np.indices(energy.shape).reshape(2, -1) * STRIDE
        rows.append(np.stack([np.full_like(tops, index), tops, lefts], axis=1))
        chances.append((energy / energy.sum()).ravel() * np.sqrt(energy.size))
    if not rows:
        raise InputError(
            f"no photograph has the {side + STRIDE} pixels a side that are needed; give larger "
            "ones, or a smaller size"
        )
    joined = np.concatenate(chances)
    return _Places(np.concatenate(rows), joined / joined.sum())


def batch_cameras(
    count: int,
    num_frames: int,
    size: int,
    room: int,
    rng: np.random.Generator,
    motion: MotionConfig,
) -> NDArray[np.float64]:
    """(N,T,3,3): as :func:`dloral.data.motion.sample_cameras`, around the centre of regions of
    ``room`` pixels."""
    still = rng.random(count) < motion.still_probability
    speed = motion.most_shift * rng.random(count) ** 3 * ~still
    angle = rng.uniform(-np.pi, np.pi, count)
    velocity = speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    share = np.minimum(1, speed / 4)
    time = np.arange(num_frames) - (num_frames - 1) / 2
    zoom = np.exp(np.outer(share * rng.normal(0, motion.zoom, count), time))
    turn = np.outer(share * rng.normal(0, motion.turn, count), time)
    tilt = share[:, None] * rng.normal(0, motion.tilt / size, (count, 2))
    shake = 0.1 * speed[:, None, None] * rng.normal(size=(count, num_frames, 2))
    centre = (room - 1) / 2 + time[None, :, None] * velocity[:, None] + shake
    return camera_maps(centre, zoom, turn, time[None, :, None] * tilt[:, None], size)


def _cell_centres(size: int, cell: int, device: torch.device) -> Tensor:
    """Centres of cells of ``cell`` pixels, (s,s,2) in pixels, x then y."""
    middles = torch.arange(size // cell, device=device, dtype=torch.float32) * cell + (cell - 1) / 2
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([x, y], dim=-1)


def _project(matrices: Tensor, size: int, cell: int) -> Tensor:
    """Where homographies (N,T,3,3) send the cell centres: (N,T,s,s,2)."""
    places = _cell_centres(size, cell, matrices.device)
    homogeneous = torch.cat([places, torch.ones_like(places[..., :1])], dim=-1)
    moved = torch.einsum("ntij,hwj->nthwi", matrices, homogeneous)
    return moved[..., :2] / moved[..., 2:]


def film_clips(
    windows: Sequence[Window], num_frames: int, reduction: int = 1, most: int = 256
) -> list[Tensor]:
    """Clips that begin at the windows' starts, each (T,3,h,w) uint8, ``reduction`` times smaller:
    evenly spread over all windows, without cuts, and at most ``most``, however long the film."""
    chosen = sorted({len(windows) * n // most for n in range(most)}) if windows else []
    shots = (window_frames(windows[number], num_frames, reduction) for number in chosen)
    whole = [shot for shot in shots if len(shot) == num_frames and not has_cut(shot)]
    if not whole:
        raise InputError(
            f"none of {len(windows)} places in the film has {num_frames} frames without a cut",
            remedy="give longer shots",
        )
    return [torch.from_numpy(shot).permute(0, 3, 1, 2).contiguous() for shot in whole]
