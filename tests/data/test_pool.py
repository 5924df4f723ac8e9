"""Pairs made while training: exact flow, rows that stay together, the newest kept."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dloral.data.batch_degradation import DegradationBank
from dloral.data.motion import MotionConfig, sample_cameras
from dloral.data.pool import (
    PairPool,
    Pictures,
    batch_cameras,
    lightly_degraded,
    read_film,
)
from dloral.errors import InputError
from dloral.models.flow import warp

SIZE = 64


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for seed in range(2):
        coarse = np.random.default_rng(seed).integers(0, 255, (14, 16, 3), dtype=np.uint8)
        paths.append(folder / f"{seed}.png")
        cv2.imwrite(str(paths[-1]), cv2.resize(coarse, (320, 260), interpolation=cv2.INTER_CUBIC))
    return paths


@pytest.fixture
def pictures(photographs: list[Path]) -> Pictures:
    return Pictures(photographs, None, SIZE, "cpu")


def test_flow_takes_a_frame_to_the_one_before(pictures: Pictures):
    frames, flow = pictures._moved(6, 3, np.random.default_rng(0), MotionConfig(most_shift=6))
    full = 8 * torch.nn.functional.interpolate(flow.flatten(0, 1), (SIZE, SIZE), mode="bilinear")
    aligned = warp(frames[:, :-1].flatten(0, 1), full, "border")
    inner = (..., slice(16, -16), slice(16, -16))
    now = frames[:, 1:].flatten(0, 1)
    left = (aligned - now)[inner].abs().mean()
    moved = (frames[:, :-1].flatten(0, 1) - now)[inner].abs().mean()
    assert left < 0.1 * moved


def test_cameras_move_as_the_one_clip_ones_do():
    """The same speeds: mean shift a frame over 400 clips, to 20%."""
    motion, rng = MotionConfig(), np.random.default_rng(0)
    ours = batch_cameras(400, 3, SIZE, 112, rng, motion)
    theirs = np.stack([sample_cameras((400, 400), 3, SIZE, rng, motion) for _ in range(400)])

    def speed(cameras: np.ndarray) -> float:
        middle = cameras @ np.array([(SIZE - 1) / 2, (SIZE - 1) / 2, 1])
        places = middle[..., :2] / middle[..., 2:]
        return float(np.linalg.norm(np.diff(places, axis=1), axis=-1).mean())

    assert speed(ours) == pytest.approx(speed(theirs), rel=0.2)


def test_what_is_drawn_belongs_together(pictures: Pictures):
    """Enlarged low-quality crops lie nearer to their own crop than to the others'."""
    rng = np.random.default_rng(1)
    pool = PairPool(pictures, DegradationBank(8, 0), 1, 16, 16)
    pool.refill(rng)
    torch.manual_seed(0)
    batch = pool.draw(6, 32, rng)
    assert batch.hq_frames.shape == batch.lq_frames.shape == (6, 1, 3, 32, 32)
    assert batch.flow.shape == (6, 0, 2, 32, 32)
    distance = torch.cdist(batch.lq_frames.flatten(1), batch.hq_frames.flatten(1))
    own = distance.diagonal().mean()
    assert own < 0.8 * distance.mean()


def test_the_oldest_make_room(pictures: Pictures):
    rng = np.random.default_rng(2)
    pool = PairPool(pictures, DegradationBank(4, 0), 3, 6, 3)
    pool.refill(rng)
    first = pool.hq[:3].clone()
    pool.refill(rng)
    assert pool.filled == 6
    assert torch.equal(pool.hq[:3], first)
    second = pool.hq[3:].clone()
    pool.refill(rng)
    assert pool.filled == 6
    assert not any(torch.equal(clip, old) for clip, old in zip(pool.hq[:3], first, strict=True))
    assert torch.equal(pool.hq[3:], second)
    pool.refill(rng)
    assert not any(torch.equal(clip, old) for clip, old in zip(pool.hq[3:], second, strict=True))


def test_film_has_no_flow(photographs: list[Path]):
    film = torch.randint(0, 255, (2, 5, 3, 70, 90), dtype=torch.uint8)
    pictures = Pictures(photographs, film, SIZE, "cpu", film_share=1.0)
    frames, flow = pictures.clips(3, 3, np.random.default_rng(0))
    assert frames.shape == (3, 3, 3, SIZE, SIZE)
    assert torch.isnan(flow).all()


def test_sources_too_small_are_one_line(photographs: list[Path]):
    with pytest.raises(InputError, match="no photograph has the 576 pixels"):
        Pictures(photographs, None, 512, "cpu")
    film = torch.zeros(1, 5, 3, 60, 90, dtype=torch.uint8)
    with pytest.raises(InputError, match="the film is 90x60"):
        Pictures(photographs, film, SIZE, "cpu")


def test_light_degradation_keeps_the_picture(pictures: Pictures):
    clip = pictures.stills(3, np.random.default_rng(0))
    small = lightly_degraded(clip, np.random.default_rng(0))
    again = torch.nn.functional.interpolate(small.flatten(0, 1), (SIZE, SIZE), mode="bicubic")
    assert (again - clip.flatten(0, 1)).abs().mean() < 0.05


def test_film_is_read_in_shots(tmp_path: Path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for grey in range(7):
        writer.write(np.full((48, 64, 3), 30 * grey, np.uint8))
    writer.release()
    film = read_film(path, 3)
    assert film.shape == (2, 3, 3, 48, 64)
    assert abs(float(film[1, 0].float().mean()) - 90) < 6
