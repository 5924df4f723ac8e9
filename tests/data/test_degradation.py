"""The two-order degradation: sizes, ranges, one draw a clip, noise afresh."""

import numpy as np
import pytest

from dloral.data.degradation import (
    DegradationConfig,
    _sample_shape,
    degrade_clip,
    sample_degradation,
)


def picture(height: int = 64, width: int = 96) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=2)
    return (0.5 + 0.4 * waves).astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_size_and_likeness(seed: int):
    rng = np.random.default_rng(seed)
    lq = degrade_clip([picture()] * 2, sample_degradation(rng), rng)
    assert lq.shape == (2, 16, 24, 3)
    assert lq.dtype == np.uint8
    small = picture().reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    assert np.abs(lq / 255 - small).mean() < 0.15


def test_the_same_seed_gives_the_same_frames():
    results = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        results.append(degrade_clip([picture()], sample_degradation(rng), rng))
    assert np.array_equal(*results)


def test_frames_of_a_clip_share_the_draw_and_not_the_noise():
    rng = np.random.default_rng(3)
    draw = sample_degradation(rng)
    first, second = degrade_clip([picture()] * 2, draw, rng).astype(int)
    assert 0 < np.abs(first - second).mean() < 40


def test_kernels_keep_brightness():
    for seed in range(40):
        draw = sample_degradation(np.random.default_rng(seed))
        for kernel in (draw.first.kernel, draw.second.kernel, draw.final_sinc):
            if kernel is not None:
                assert abs(kernel.sum() - 1) < 1e-4
                assert kernel.shape[0] % 2 == 1
                assert 7 <= kernel.shape[0] <= 21


def test_draws_follow_the_declared_probabilities():
    draws = [sample_degradation(np.random.default_rng(seed)) for seed in range(600)]
    assert abs(np.mean([d.final_sinc is not None for d in draws]) - 0.8) < 0.06
    assert abs(np.mean([d.second.kernel is not None for d in draws]) - 0.5) < 0.07
    assert abs(np.mean([d.first.noise.kind == "gaussian" for d in draws]) - 0.5) < 0.07
    assert all(60 <= d.first.jpeg_quality <= 95 for d in draws)
    assert all(0.3 <= d.first.resize_factor <= 1.5 for d in draws)


@pytest.mark.parametrize("bounds", [(0.5, 4.0), (1.0, 2.0)])
def test_half_of_the_bells_are_at_most_as_peaked_as_a_gaussian(bounds: tuple[float, float]):
    rng = np.random.default_rng(0)
    drawn = np.array([_sample_shape(rng, bounds) for _ in range(2000)])
    assert abs((drawn <= 1).mean() - 0.5) < 0.03
    assert drawn.min() >= bounds[0]
    assert drawn.max() <= bounds[1]
    assert abs(drawn[drawn <= 1].mean() - (bounds[0] + 1) / 2) < 0.02
    assert abs(drawn[drawn > 1].mean() - (1 + bounds[1]) / 2) < 0.08


def test_a_size_that_does_not_divide_is_refused():
    rng = np.random.default_rng(0)
    draw = sample_degradation(rng, DegradationConfig())
    with pytest.raises(ValueError, match="multiples of 4"):
        degrade_clip([picture(62, 96)], draw, rng)
