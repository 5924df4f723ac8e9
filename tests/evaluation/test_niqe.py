"""NIQE against a second implementation, block by block with SciPy, as the paper has it."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from scipy.special import gamma
from skimage.data import astronaut
from torch import Tensor

from dloral.errors import InputError
from dloral.evaluation.fidelity import luma
from dloral.evaluation.niqe import niqe, photograph_model

SHAPES = np.arange(0.2, 10.001, 0.001)
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def window() -> np.ndarray:
    axis = np.arange(-3, 4)
    kernel = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * (7 / 6) ** 2))
    return kernel / kernel.sum()


def normalised(grey: np.ndarray) -> np.ndarray:
    mean = correlate(grey, window(), mode="nearest")
    square = correlate(grey**2, window(), mode="nearest")
    return (grey - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)


def fitted(values: np.ndarray) -> tuple[float, float, float]:
    left = np.sqrt((values[values < 0] ** 2).mean())
    right = np.sqrt((values[values > 0] ** 2).mean())
    ratio = left / right
    wanted = np.abs(values).mean() ** 2 / (values**2).mean()
    wanted *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = SHAPES[np.argmin((RATIOS - wanted) ** 2)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def features(block: np.ndarray) -> list[float]:
    shape, left, right = fitted(block)
    found = [shape, (left + right) / 2]
    for rows, columns in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = fitted(block * np.roll(np.roll(block, rows, 0), columns, 1))
        found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return found


def cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return near * (x <= 1) + far * ((x > 1) & (x <= 2))


def halved(grey: np.ndarray) -> np.ndarray:
    """MATLAB's imresize by a half: the cubic stretched over twice the pixels, mirrored edges."""
    taps = np.arange(-3, 5)
    weights = cubic((taps - 0.5) / 2)
    weights /= weights.sum()
    for axis in (0, 1):
        padded = np.pad(grey, [(8, 8) if a == axis else (0, 0) for a in (0, 1)], "symmetric")
        centres = 8 + 2 * np.arange(grey.shape[axis] // 2)
        grey = sum(w * padded.take(centres + t, axis) for w, t in zip(weights, taps, strict=True))
    return grey


def by_the_book(frame: Tensor) -> float:
    grey = np.round(255 * luma(frame.double())[0].numpy())
    rows, columns = grey.shape[0] // 96, grey.shape[1] // 96
    grey = grey[: rows * 96, : columns * 96]
    found = []
    for picture, side in ((grey, 96), (halved(grey), 48)):
        picture = normalised(picture)
        blocks = [
            picture[r * side : (r + 1) * side, c * side : (c + 1) * side]
            for r in range(rows)
            for c in range(columns)
        ]
        found.append([features(block) for block in blocks])
    found = np.concatenate([np.array(scale) for scale in found], axis=1)
    mean, covariance = photograph_model()
    away = mean - found.mean(axis=0)
    return np.sqrt(away @ np.linalg.pinv((covariance + np.cov(found.T)) / 2) @ away)


def test_niqe_is_the_papers(pictures: list[Tensor]) -> None:
    """Twelve frames from nearly clean to noisy. None is without grain: on flat ground signs are
    rounding errors, and the two implementations would count other ones."""
    values = []
    for seed, frame in enumerate(pictures):
        large = torch.nn.functional.interpolate(frame[None], (210, 390), mode="bilinear")[0]
        grain = torch.randn(large.shape, generator=torch.Generator().manual_seed(seed))
        noisy = (0.2 + 0.6 * large + 0.01 * (1 + seed) * grain).clamp(0, 1)
        values.append(niqe(noisy))
        assert values[-1] == pytest.approx(by_the_book(noisy), rel=1e-4)
    assert max(values) > 1.5 * min(values), "the frames must differ to tell anything"


def test_a_spoilt_photograph_is_less_natural() -> None:
    photograph = torch.from_numpy(astronaut()).permute(2, 0, 1) / 255
    blurred = torch.nn.functional.avg_pool2d(photograph[None], 7, 1, 3)[0]
    grain = torch.randn(photograph.shape, generator=torch.Generator().manual_seed(0))
    assert niqe(photograph) < 5
    assert niqe(blurred) > niqe(photograph) + 1
    assert niqe((photograph + 0.1 * grain).clamp(0, 1)) > niqe(photograph) + 1


def test_flat_ground_has_no_statistics() -> None:
    assert np.isnan(niqe(torch.full((3, 200, 200), 0.5)))


def test_small_frames_are_refused() -> None:
    with pytest.raises(InputError, match="192x96"):
        niqe(torch.rand(3, 96, 100))
