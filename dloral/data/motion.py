"""Clips with exactly known flow, made from photographs.

A camera moves over the photograph (shift, zoom, turn, tilt: one homography per frame); sometimes a
second photograph moves in front of it behind a soft-edged mask. Frames are uint8 (S,S,3); the flow
from current to previous is exact wherever the previous frame shows the same surface.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class MotionConfig:
    """Speeds per frame: ``shift`` in pixels (most clips slow, a few up to the limit), ``zoom`` as
    the log of a factor, ``turn`` in radians, ``tilt`` as a change of scale across the frame."""

    most_shift: float = 32.0
    zoom: float = 0.02
    turn: float = 0.02
    tilt: float = 0.04
    still_probability: float = 0.1
    foreground_probability: float = 0.4


@dataclass(frozen=True)
class MovingClip:
    """frames (T,S,S,3) uint8, flow (T-1,2,S,S) float32 in pixels, current to previous (dx, dy);
    ``known`` (T-1,S,S): the previous frame shows the same surface there, and nothing else."""

    frames: Pixels
    flow: NDArray[np.float32]
    known: NDArray[np.bool_]


def sample_clip(
    photo: Pixels,
    foreground: Pixels | None,
    num_frames: int,
    size: int,
    rng: np.random.Generator,
    config: MotionConfig | None = None,
) -> MovingClip:
    """A clip over ``photo`` (H,W,3), and over ``foreground`` in front of it where one is given."""
    config = config or MotionConfig()
    layers = [_layer(photo, num_frames, size, rng, config)]
    if foreground is None:
        return layers[0]
    layers.append(_layer(foreground, num_frames, size, rng, config))
    masks = _moving_mask(layers[1].flow, size, rng)
    frames = [
        np.round(behind + mask[..., None] * (front.astype(np.float32) - behind))
        for behind, front, mask in zip(layers[0].frames, layers[1].frames, masks, strict=True)
    ]
    in_front = np.array(masks[1:]).reshape(-1, size, size) > 0.5
    flow = np.where(in_front[:, None], layers[1].flow, layers[0].flow)
    known = np.where(in_front, layers[1].known, layers[0].known)
    for step, way in enumerate(flow):
        known[step] &= _same_layer(masks[step], masks[step + 1], way)
    return MovingClip(np.stack(frames).astype(np.uint8), flow, known)


def _layer(
    photo: Pixels, num_frames: int, size: int, rng: np.random.Generator, config: MotionConfig
) -> MovingClip:
    cameras = sample_cameras(photo.shape[:2], num_frames, size, rng, config)
    frames = [
        cv2.warpPerspective(
            photo,
            camera,
            (size, size),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        for camera in cameras
    ]
    flow = [homography_flow(np.linalg.inv(before) @ now, size) for before, now in pairwise(cameras)]
    ways = np.array(flow, np.float32).reshape(-1, 2, size, size)
    return MovingClip(np.stack(frames), ways, _inside(ways))


def sample_cameras(
    photo_size: tuple[int, ...],
    num_frames: int,
    size: int,
    rng: np.random.Generator,
    config: MotionConfig,
) -> Values:
    """For every frame, the map (T,3,3) from its pixels to the photograph's; a steady motion with a
    little shake, as if hand-held."""
    height, width = photo_size
    speed = config.most_shift * rng.random() ** 3 * (rng.random() >= config.still_probability)
    angle = rng.uniform(-np.pi, np.pi)
    velocity = speed * np.array([np.cos(angle), np.sin(angle)])
    share = min(1.0, speed / 4)  # zoom, turn and tilt only where the camera moves at all
    zoom, turn = (share * rng.normal(0, spread) for spread in (config.zoom, config.turn))
    tilt = share * rng.normal(0, config.tilt / size, size=2)
    reach = speed * num_frames
    margin = [min(reach + size / 2, side / 2) for side in (width, height)]
    centre = np.array(
        [rng.uniform(edge, side - edge) for edge, side in zip(margin, (width, height), strict=True)]
    )
    time = np.arange(num_frames, dtype=np.float64) - (num_frames - 1) / 2
    shake = 0.1 * speed * rng.normal(size=(num_frames, 2))
    places = centre + time[:, None] * velocity + shake
    return camera_maps(places, np.exp(time * zoom), time * turn, time[:, None] * tilt, size)


def camera_maps(places: Values, zoom: Values, turn: Values, tilt: Values, size: int) -> Values:
    """Maps (...,3,3) from a frame's pixels to a picture's around ``places`` (...,2); zoom and turn
    are (...), tilt (...,2)."""
    to_middle = np.array([[1, 0, -(size - 1) / 2], [0, 1, -(size - 1) / 2], [0, 0, 1]])
    move = np.zeros((*zoom.shape, 3, 3))
    move[..., 0, 0] = move[..., 1, 1] = zoom * np.cos(turn)
    move[..., 1, 0] = zoom * np.sin(turn)
    move[..., 0, 1] = -move[..., 1, 0]
    move[..., :2, 2] = places
    move[..., 2, 2] = 1
    perspective = np.broadcast_to(np.eye(3), move.shape).copy()
    perspective[..., 2, :2] = tilt
    return move @ perspective @ to_middle


def homography_flow(homography: Values, size: int) -> NDArray[np.float32]:
    """Each pixel's displacement under ``homography``: (2,S,S), dx then dy."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    places = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    moved = homography @ places
    moved = (moved[:2] / moved[2]).reshape(2, size, size)
    return (moved - np.stack([x, y])).astype(np.float32)


def _inside(flow: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the flow (T-1,2,S,S) ends in the previous picture: (T-1,S,S)."""
    size = flow.shape[-1]
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    ends = flow + np.stack([x, y])
    return ((ends >= 0) & (ends <= size - 1)).all(axis=1)


def _same_layer(
    before: NDArray[np.float32], now: NDArray[np.float32], flow: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Where a single layer is seen, both now and at the flow's end in the previous frame: (S,S)."""
    x, y = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in now.shape))
    earlier = cv2.remap(
        before, x + flow[0], y + flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    least, most = np.minimum(now, earlier), np.maximum(now, earlier)
    return (most < 0.01) | (least > 0.99)


def _moving_mask(
    flow: NDArray[np.float32], size: int, rng: np.random.Generator
) -> list[NDArray[np.float32]]:
    """A soft-edged blob (S,S) in [0, 1] for every frame, moved by the layer's own flow."""
    noise = rng.standard_normal((8, 8)).astype(np.float32)
    blob = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    mask = np.clip(0.5 + 4 * (blob - np.quantile(blob, 0.7)), 0, 1).astype(np.float32)
    masks = [mask]
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    for dx, dy in flow:
        masks.append(
            cv2.remap(masks[-1], x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        )
    return masks
