"""Pairs made while a GPU trains: photographs and film held on the device, degraded in batches.

:class:`Pictures` holds the sources and cuts stills and moving clips with exact flow from them;
:class:`PairPool` keeps the newest thousands of degraded clips and draws training batches from them.
The same motion and degradation as :mod:`dloral.data.samples` makes one sample at a time, but
without a processor core between source and network.

Legend: N clips, T frames, S pixels a side, cells of 8 pixels. Frames are uint8 where they are kept
and float32 RGB in [0, 1] where they are used.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dloral.data.batch_degradation import DegradationBank, jpeg
from dloral.data.clips import Clips
from dloral.data.motion import MotionConfig
from dloral.errors import InputError
from dloral.frames.resize import LATENT_STRIDE, resize_bicubic

REDUCTIONS = (1.0, 1.3, 1.7)
"""Every photograph is also there smaller: more kinds of texture from few pictures."""

STRIDE = 64
"""Pixels between the places where a crop may start."""

ROOM = 1.75
"""A camera moves over this many times the clip's side."""


class Pictures:
    """Photographs (3,H,W) and film clips (F,T,3,h,w), uint8 on ``device``.

    A place in a photograph is drawn by how much fine detail it holds, with a little for smooth
    ones; of photographs with many places each is drawn less often than of small ones.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        film: Tensor | None,
        size: int,
        device: torch.device | str,
        film_share: float = 0.2,
    ) -> None:
        self.size, self.film = size, film.to(device) if film is not None else None
        self.device, self.film_share = torch.device(device), film_share if film is not None else 0.0
        with ThreadPoolExecutor() as pool:
            read = list(pool.map(_read, photos))
        self.photos = [torch.from_numpy(p).to(device).permute(2, 0, 1) for p in read]
        self.photos += [_smaller(p, r) for r in REDUCTIONS[1:] for p in self.photos[: len(read)]]
        if film is not None and min(film.shape[-2:]) < size:
            raise InputError(
                f"the film is {film.shape[-1]}x{film.shape[-2]}; give one of {size} pixels a side "
                "or more, or a smaller size"
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
        """(N,T,3,S,S) float and flow (N,T-1,2,s,s) in cells; of film the flow is not known: NaN."""
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
        assert self.film is not None
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


def _read(path: Path) -> NDArray[np.uint8]:
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photo is None:
        raise InputError(f"{path} is not a readable picture; take it out of the folder")
    return np.ascontiguousarray(photo[..., ::-1])


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
    """(N,T,3,3): as :func:`dloral.data.motion.sample_cameras`, around the middle of regions of
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

    to_middle = np.array([[1, 0, -(size - 1) / 2], [0, 1, -(size - 1) / 2], [0, 0, 1]])
    move = np.zeros((count, num_frames, 3, 3))
    move[..., 0, 0] = move[..., 1, 1] = zoom * np.cos(turn)
    move[..., 1, 0] = zoom * np.sin(turn)
    move[..., 0, 1] = -move[..., 1, 0]
    move[..., :2, 2] = centre
    move[..., 2, 2] = 1
    perspective = np.broadcast_to(np.eye(3), move.shape).copy()
    perspective[..., 2, :2] = time[None, :, None] * tilt[:, None]
    return move @ perspective @ to_middle


def _cell_centres(size: int, cell: int, device: torch.device) -> Tensor:
    """Where cells of ``cell`` pixels have their middle, (s,s,2) in pixels, x then y."""
    middles = torch.arange(size // cell, device=device, dtype=torch.float32) * cell + (cell - 1) / 2
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([x, y], dim=-1)


def _project(matrices: Tensor, size: int, cell: int) -> Tensor:
    """Where homographies (N,T,3,3) send the middles of the cells: (N,T,s,s,2)."""
    places = _cell_centres(size, cell, matrices.device)
    homogeneous = torch.cat([places, torch.ones_like(places[..., :1])], dim=-1)
    moved = torch.einsum("ntij,hwj->nthwi", matrices, homogeneous)
    return moved[..., :2] / moved[..., 2:]


class PairPool:
    """The newest ``capacity`` degraded clips of T frames; the oldest make room for new ones.

    ``light_share`` of the clips are made smaller and lightly compressed, no more: what is hardly
    degraded must not be spoilt.
    """

    def __init__(
        self,
        pictures: Pictures,
        bank: DegradationBank,
        num_frames: int,
        capacity: int,
        at_a_time: int,
        light_share: float = 0.0,
    ) -> None:
        size, device = pictures.size, pictures.device
        self.pictures, self.bank = pictures, bank
        self.num_frames, self.at_a_time = num_frames, at_a_time
        self.light_share = light_share
        shape = (capacity, num_frames, 3)
        self.hq = torch.empty(*shape, size, size, dtype=torch.uint8, device=device)
        self.lq = torch.empty(*shape, size // 4, size // 4, dtype=torch.uint8, device=device)
        cells = size // LATENT_STRIDE
        self.flow = torch.zeros(
            capacity, num_frames - 1, 2, cells, cells, dtype=torch.float16, device=device
        )
        self.filled = self.made = 0

    @torch.no_grad()
    def refill(self, rng: np.random.Generator) -> None:
        """Make ``at_a_time`` new clips."""
        if self.num_frames == 1:
            hq, flow = self.pictures.stills(self.at_a_time, rng), None
        else:
            hq, flow = self.pictures.clips(self.at_a_time, self.num_frames, rng)
        lq = self.bank.degrade(hq, rng)
        light = int(rng.binomial(self.at_a_time, self.light_share))
        if light:
            lq[:light] = lightly_degraded(hq[:light], rng)
        start = self.made if self.made + self.at_a_time <= len(self.hq) else 0
        rows = slice(start, start + self.at_a_time)
        self.hq[rows] = (255 * hq).round().byte()
        self.lq[rows] = (255 * lq).round().byte()
        if flow is not None:
            self.flow[rows] = flow.half()
        self.made = start + self.at_a_time
        self.filled = max(self.filled, self.made)

    def draw(self, count: int, crop: int, rng: np.random.Generator) -> Clips:
        """``count`` random clips, each cut to ``crop`` pixels somewhere on the latent grid, all of
        them turned and mirrored in the same one of eight ways. Flow is in pixels at full size."""
        device = self.hq.device
        # On the device, so that a step never waits for a copy of a few numbers.
        rows = torch.randint(self.filled, (count,), device=device)
        steps = (self.hq.shape[-1] - crop) // LATENT_STRIDE
        offsets = torch.randint(steps + 1, (2, count), device=device)
        parts = [
            _cut(tensor, rows, unit * offsets, side)
            for tensor, unit, side in (
                (self.hq, LATENT_STRIDE, crop),
                (self.lq, LATENT_STRIDE // 4, crop // 4),
                (self.flow, 1, crop // LATENT_STRIDE),
            )
        ]
        hq, lq, flow = _turned(parts[0], parts[1], parts[2], rng)
        small = lq.flatten(0, 1).float() / 255
        enlarged = resize_bicubic(small, crop, crop).unflatten(0, lq.shape[:2])
        full = flow.flatten(0, 1).float()
        if self.num_frames > 1:
            full = LATENT_STRIDE * F.interpolate(full, (crop, crop), mode="bilinear")
        full = full.reshape(count, self.num_frames - 1, 2, crop, crop)
        return Clips(hq.float() / 255, enlarged, full)


def lightly_degraded(hq_frames: Tensor, rng: np.random.Generator) -> Tensor:
    """(N,T,3,H,W), four times smaller (bicubic, antialiased), and JPEG of quality 70 to 100."""
    size = [side // 4 for side in hq_frames.shape[-2:]]
    small = F.interpolate(hq_frames.flatten(0, 1), size, mode="bicubic", antialias=True).clamp(0, 1)
    quality = torch.from_numpy(rng.uniform(70, 100, len(hq_frames))).float().to(hq_frames.device)
    return jpeg(small.unflatten(0, hq_frames.shape[:2]), quality)


def smooth_pairs(
    count: int, size: int, rng: np.random.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(true, degraded and enlarged) (N,3,S,S): slow waves of colour, lightly degraded, some with a
    little noise. On such ground nothing hides what a decoder draws of itself."""
    hq = torch.zeros(count, 3, size, size, device=device)
    for points, strength in ((2, 0.12), (4, 0.04)):
        noise = torch.from_numpy(rng.standard_normal((count, 3, points, points), np.float32))
        wave = F.interpolate(noise.to(device), (size, size), mode="bicubic", align_corners=True)
        hq += strength * wave
    base = 0.5 * rng.random((count, 3, 1, 1)) + 0.5 * rng.random((count, 1, 1, 1))
    hq = (hq + torch.from_numpy(base).float().to(device)).clamp(0, 1)
    small = lightly_degraded(hq[:, None], rng)[:, 0]
    levels = 0.01 * rng.random((count, 1, 1, 1)) * rng.integers(2, size=(count, 1, 1, 1))
    noise = torch.from_numpy(rng.standard_normal(small.shape, np.float32) * levels).float()
    small = (small + noise.to(device)).clamp(0, 1)
    return hq, resize_bicubic((255 * small).round() / 255, size, size)


def _cut(tensor: Tensor, rows: Tensor, offsets: Tensor, side: int) -> Tensor:
    """tensor (M,T,C,H,W) at rows (N,), from offsets (2,N): (N,T,C,side,side)."""
    span = torch.arange(side, device=tensor.device)
    y, x = (offset[:, None] + span for offset in offsets)
    # Indices on both sides of slices come first in the result: (N,side,side,T,C).
    cut = tensor[rows[:, None, None], :, :, y[:, :, None], x[:, None, :]]
    return cut.permute(0, 3, 4, 1, 2)


def _turned(
    hq: Tensor, lq: Tensor, flow: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    for axis, sign in ((-1, (-1.0, 1.0)), (-2, (1.0, -1.0))):
        if rng.integers(2):
            hq, lq, flow = (part.flip(axis) for part in (hq, lq, flow))
            flow = flow * flow.new_tensor(sign).view(2, 1, 1)
    if rng.integers(2):
        hq, lq, flow = (part.transpose(-1, -2) for part in (hq, lq, flow))
        flow = flow.flip(2)
    return hq, lq, flow


def read_film(path: Path, frames_a_clip: int) -> Tensor:
    """A video whose every ``frames_a_clip`` frames are one shot: (F,T,3,H,W) uint8 RGB."""
    video = cv2.VideoCapture(str(path))
    frames = []
    while True:
        good, frame = video.read()
        if not good:
            break
        frames.append(np.ascontiguousarray(frame[..., ::-1].transpose(2, 0, 1)))
    count = len(frames) // frames_a_clip
    if not count:
        raise InputError(
            f"{path} has {len(frames)} readable frames; give a video of shots of {frames_a_clip}"
        )
    film = torch.from_numpy(np.stack(frames[: count * frames_a_clip]))
    return film.unflatten(0, (count, frames_a_clip))
