"""Pairs made while training: exact flow, rows that stay together, the newest kept, and the same
whenever they are drawn."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dloral.data import odd
from dloral.data.clips import Clips, Draw
from dloral.data.motion import MotionConfig, sample_cameras
from dloral.data.pictures import FULL_SIZE, Pictures, batch_cameras, film_clips
from dloral.data.pool import PoolClips, PoolConfig, lightly_degraded
from dloral.data.sources import find_sources
from dloral.data.spec import ClipSpec
from dloral.errors import InputError, OptionError
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
    config = PoolConfig(held=16, at_a_time=16, warm_refills=0, light_share=0.0, draws=8)
    pool = PoolClips(pictures, frames=1, clips=6, crop=32, seed=1, config=config)
    batch = drawn(pool, 0)
    assert batch.hq_frames.shape == batch.lq_frames.shape == (6, 1, 3, 32, 32)
    assert batch.flow is not None
    assert batch.flow.shape == (6, 0, 2, 32, 32)
    distance = torch.cdist(batch.lq_frames.flatten(1), batch.hq_frames.flatten(1))
    own = distance.diagonal().mean()
    assert own < 0.8 * distance.mean()


def test_odd_clips_are_the_last_of_a_refill(pictures: Pictures):
    """All odd: half in other colours, half charts, which stand still and lost nothing."""
    config = PoolConfig(held=8, at_a_time=8, warm_refills=0, light_share=0.0, draws=8)
    plain, odd = (
        PoolClips(pictures, frames=3, clips=1, crop=SIZE, seed=1, config=one)
        for one in (config, replace(config, odd_share=1.0))
    )
    for pool in (plain, odd):
        drawn(pool, 0)
    moved = odd.flow.flatten(1).abs().sum(1) > 0
    assert moved.tolist() == [True] * 4 + [False] * 4
    assert torch.equal(odd.flow[:4], plain.flow[:4])
    assert (odd.hq[:4].float() - plain.hq[:4].float()).abs().flatten(1).mean(1).min() > 10
    charts = odd.hq[4:]
    assert torch.equal(charts[:, :1].expand_as(charts), charts)
    again = torch.nn.functional.interpolate(
        odd.lq[4:, 0].float(), scale_factor=4, mode="bicubic"
    ).clamp(0, 255)
    assert (again - charts[:, 0].float()).abs().mean() < 10


def test_a_draw_knows_which_clips_lost_nothing(pictures: Pictures, monkeypatch: pytest.MonkeyPatch):
    """Charts that repeat, wherever they lie in the pool."""
    monkeypatch.setattr(odd, "PATTERNS", odd.REPEATING)
    config = PoolConfig(held=8, at_a_time=4, warm_refills=1, light_share=0.0, draws=8, odd_share=1)
    pool = PoolClips(pictures, frames=2, clips=16, crop=SIZE, seed=1, config=config)
    batch = drawn(pool, 0)
    assert batch.lossless is not None
    assert 0 < int(batch.lossless.sum()) < 16
    away = (batch.hq_frames - batch.lq_frames).abs().flatten(1).mean(1)
    assert torch.equal(batch.lossless, away < 1 / 255)
    monkeypatch.setattr(odd, "PATTERNS", (odd._noise,))
    pool = PoolClips(pictures, frames=2, clips=16, crop=SIZE, seed=1, config=config)
    batch = drawn(pool, 0)
    assert batch.lossless is not None
    assert not batch.lossless.any()


def test_a_camera_s_full_size_is_halved(photographs: list[Path], tmp_path: Path):
    """What is soft at its full size is not taken for sharp ground truth."""
    large = tmp_path / "large.png"
    cv2.imwrite(str(large), cv2.resize(cv2.imread(str(photographs[0])), (FULL_SIZE + 2, 400)))
    found = Pictures([*photographs, large], None, SIZE, "cpu").photos[:3]
    sizes = [tuple(photo.shape[1:]) for photo in found]
    assert sizes == [(260, 320), (260, 320), (200, FULL_SIZE // 2 + 1)]


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


def test_film_is_read_where_its_clips_start(tmp_path: Path):
    """Evenly over the film, no more than asked for, and none across a cut."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for frame in range(40):
        grey = 8 + 2 * frame if frame < 21 else 250 - 2 * frame  # the cut is before frame 21
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    spec = ClipSpec((f"videos:{path}",), frames=4, size=24, video_spacing=0.5)
    windows = find_sources(spec).windows
    assert len(windows) == 8
    film = film_clips(windows, 4, reduction=2)
    assert [clip.shape for clip in film] == [(4, 3, 24, 32)] * 7
    starts = [float(clip[0].float().mean()) for clip in film]
    assert starts == pytest.approx([8, 18, 28, 38, 200, 190, 180], abs=3)
    few = film_clips(windows, 4, reduction=2, most=2)
    assert [float(clip[0].float().mean()) for clip in few] == pytest.approx([8], abs=3)
    with pytest.raises(InputError, match="none of 8 places in the film has 50 frames"):
        film_clips(windows, 50)


SMALL = PoolConfig(held=9, at_a_time=3, refill_every=2, warm_refills=2, light_share=0.4, draws=6)


def pool_clips(pictures: Pictures, seed: int = 5) -> PoolClips:
    return PoolClips(pictures, frames=2, clips=3, crop=32, seed=seed, config=SMALL)


def drawn(source: PoolClips, step: int, micro: int = 0) -> Clips:
    return source.draw(Draw(step, micro, np.random.default_rng((7, step, micro))))


def same(first: Clips, second: Clips) -> bool:
    assert first.flow is not None
    assert second.flow is not None
    pairs = ((first.hq_frames, second.hq_frames), (first.lq_frames, second.lq_frames))
    flows = (first.flow, second.flow)
    return all(torch.equal(a, b) for a, b in (*pairs, flows))


def test_smaller_scales_are_of_larger_parts(pictures: Pictures):
    """Degraded as ever, truth and flow smaller: the sizes of a crop, at scales from 4 down to 2."""
    config = replace(SMALL, smaller_share=0.5, most_reduction=2.0)
    assert config.size(32) == SIZE
    pool = PoolClips(pictures, frames=2, clips=3, crop=32, seed=5, config=config)
    moved, left = {}, []
    for step in range(24):
        clips = drawn(pool, step)
        assert clips.hq_frames.shape == clips.lq_frames.shape == (3, 2, 3, 32, 32)
        assert clips.flow is not None
        assert clips.small_frames is not None
        assert clips.flow.shape == (3, 1, 2, 32, 32)
        before, now = clips.hq_frames.unbind(1)
        inner = (..., slice(8, -8), slice(8, -8))
        change = [
            (frames - now)[inner].abs().mean()
            for frames in (before, warp(before, clips.flow[:, 0], "border"))
        ]
        moved[clips.small_frames.shape[-1]] = change[0]
        if clips.small_frames.shape[-1] > 8:
            left.append(change[1] / change[0])
    assert min(moved) == 8
    assert 12 < max(moved) <= 16
    assert sum(left) / len(left) < 0.6


def test_a_resumed_pool_draws_what_an_unbroken_one_does(pictures: Pictures):
    """At every step of a run that fills the pool more than twice over; torch's own random numbers
    are neither used nor moved."""
    unbroken = pool_clips(pictures)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    clips = [drawn(unbroken, step) for step in range(12)]
    assert torch.equal(torch.get_rng_state(), before)
    for step in (0, 1, 5, 11):
        torch.manual_seed(step + 1)
        assert same(drawn(pool_clips(pictures), step), clips[step]), step
    # Asked for again, in any order, and jumping ahead.
    for step in (3, 11, 2):
        assert same(drawn(unbroken, step), clips[step]), step
    assert not same(clips[0], clips[1])
    assert not same(drawn(unbroken, 2, micro=1), clips[2])
    assert not same(drawn(pool_clips(pictures, seed=6), 2), clips[2])


def test_a_draw_sees_the_refills_that_are_due(pictures: Pictures):
    """Three before the first step, one more every second; three are kept."""
    source = pool_clips(pictures)
    for step, refills in ((0, 3), (1, 3), (2, 4), (9, 7), (4, 5)):
        drawn(source, step)
        assert source.refills == refills, step
    kept = {tuple(clip.flatten()[:50].tolist()) for clip in source.hq}
    again = pool_clips(pictures)
    for step in range(5):
        drawn(again, step)
    assert kept == {tuple(clip.flatten()[:50].tolist()) for clip in again.hq}


@pytest.mark.parametrize(
    "wrong",
    [{"held": 2}, {"refill_every": 0}, {"light_share": 1.1}, {"odd_share": 1.1}],
)
def test_pool_settings_check_themselves(wrong: dict):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        replace(SMALL, **wrong)
