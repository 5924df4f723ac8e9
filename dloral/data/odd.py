"""Pictures that no camera takes, but that users have: drawings, screens, test charts, noise.

On these, a generative network that never saw them may return arbitrarily large values (our
decision: docs/decisions.md, "Some clips are pictures that no camera takes").
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dloral.frames.resize import resize_bicubic

LARGEST_PERIOD = 8
"""Pixels of the small frames after which a pattern comes again."""

Strength = NDArray[Any]  # (S,S) or (3,S,S): the second colour's share in each place, 0 to 1

PURE_SHARE = 0.6
"""Of the colours' channels, how many are 0 or 1."""


def recoloured(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Frames (N,T,3,H,W) in [0, 1] with each clip's colours remixed, stretched and clamped:
    negatives, single colours, flat areas at both ends of the range."""
    count = len(frames)
    mix = rng.standard_normal((count, 3, 3)) * rng.uniform(0.5, 3.0, (count, 1, 1))
    middle = rng.uniform(0, 1, (count, 1, 3, 1, 1))
    matrix, offset = (torch.from_numpy(part).to(frames) for part in (mix, middle))
    return (torch.einsum("nij,ntjhw->ntihw", matrix, frames - 0.5) + offset).clamp(0, 1)


def charts(
    count: int, side: int, rng: np.random.Generator, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """(true (N,3,4S,4S), small (N,3,S,S), repeating (N,) bool), pictures in [0, 1]: two colours in
    a pattern of whole pixels, or noise. The truth is the small picture enlarged (bicubic): nothing
    was lost. A teacher turns repeating patterns into different ones, and the rest into crisper."""
    made, repeating = zip(*(_chart(side, rng) for _ in range(count)), strict=True)
    small = torch.from_numpy(np.stack(made)).to(device)
    true = resize_bicubic(small, 4 * side, 4 * side, "pil")
    return true, small, torch.tensor(repeating, device=device)


def _chart(side: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], bool]:
    """(3,S,S), and whether it repeats."""
    two = rng.random((2, 3, 1, 1))
    two = np.where(rng.random(two.shape) < PURE_SHARE, two.round(), two)
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    chart = two[0] + pattern(side, rng) * (two[1] - two[0])
    return chart.astype(np.float32), pattern in REPEATING


def _flat(side: int, rng: np.random.Generator) -> Strength:
    return np.full((side, side), float(rng.integers(2)))


def _edge(side: int, rng: np.random.Generator) -> Strength:
    """An edge in any direction; half lie between two rows or columns, as on screens."""
    y, x = np.mgrid[:side, :side] - round(rng.uniform(0.2, 0.8) * side)
    angle = np.pi / 2 * rng.integers(4) if rng.integers(2) else rng.uniform(0, 2 * np.pi)
    return np.clip(np.cos(angle) * x + np.sin(angle) * y + 0.5, 0.0, 1.0)


def _ramp(side: int, rng: np.random.Generator) -> Strength:
    ramp = np.tile(np.linspace(0, 1, side), (side, 1))
    return ramp.T if rng.integers(2) else ramp


def _stripes(side: int, rng: np.random.Generator) -> Strength:
    period = int(rng.integers(2, LARGEST_PERIOD + 1))
    one = [float(place % period < period // 2) for place in range(side)]
    stripes = np.tile(one, (side, 1))
    return stripes.T if rng.integers(2) else stripes


def _checks(side: int, rng: np.random.Generator) -> Strength:
    y, x = np.mgrid[:side, :side] // int(rng.integers(1, LARGEST_PERIOD // 2 + 1))
    return (y + x) % 2 * 1.0


def _dots(side: int, rng: np.random.Generator) -> Strength:
    """Dots on one pixel in a hundred to half of them, per channel or in all channels at once."""
    channels = rng.choice([1, 3])
    return (rng.random((channels, side, side)) < 0.5 * 10 ** rng.uniform(-1.7, 0)) * 1.0


def _noise(side: int, rng: np.random.Generator) -> Strength:
    return rng.random((rng.choice([1, 3]), side, side))


REPEATING = (_stripes, _checks)
PATTERNS = (_flat, _edge, _ramp, *3 * REPEATING, _dots, _noise)
"""Three times as many that repeat: a network learns them last."""
