"""Regular patterns with periods of 2, 4 and 8 pixels, which pixel shuffles tend to produce.

A pattern that repeats every p pixels puts all of its power on single points of the picture's
spectrum, at multiples of 1/p; a picture's own spreads smoothly. So the measure (our decision) is
the power at those points over that of their neighbourhood, in dB: about 0 for a picture without a
pattern; 20 means a hundred times the neighbourhood. Where there is a ground truth, its figure is
subtracted, since blinds and tiles are pictures too.

Both pictures are measured after rounding to 8 bits. The truth already is 8-bit; in a float output,
a pattern of hundredths of a grey level would tower over surroundings free of rounding noise.

In smooth areas an invisible pattern can stand out by many dB; ``grid_level`` gives its strength in
grey levels, as the root mean square of what stands out at all three periods.
"""

import numpy as np
import torch
from torch import Tensor

from dloral.evaluation.fidelity import luma
from dloral.evaluation.measures import FrameSet, Measure, MetricSpec

PERIODS = (2, 4, 8)
NEAREST, FARTHEST = 3, 8
"""Bins: a neighbourhood is 3 to 8 bins away; a Hann window smears a point over two."""

MULTIPLE = 8
SMALLEST = 80
"""Pixels a side. Points are an eighth of it apart, 10 bins here; at 72 or 64 they are 9 or 8, and
the next point, smeared by the window, lies in the neighbourhood: strong dots read 14 or 7 dB."""

LEVEL = "grid_level"


def grid_power(frame: Tensor) -> dict[str, float]:
    """``grid_2``, ``grid_4``, ``grid_8``: the power at each period over its neighbourhood, in dB,
    and ``grid_level``: the pattern's root mean square in grey levels of 255.

    Of a frame (3,H,W) in [0, 1], columns and rows together; empty below 80 pixels a side.
    """
    height, width = (side // MULTIPLE * MULTIPLE for side in frame.shape[-2:])
    if min(height, width) < SMALLEST:
        return {}
    grey = 255 * luma(frame.double())[0, :height, :width]
    window = torch.outer(*(torch.hann_window(side, dtype=grey.dtype) for side in (height, width)))
    spectrum = torch.fft.fft2((grey - grey.mean()) * window.to(grey.device))
    power = (spectrum.abs() / window.sum()).square()
    found, excess = {}, 0.0
    for period in PERIODS:
        at, around, weights = _point_powers(power, period)
        # Point by point, so that the few points of low frequency, where pictures have most of
        # their power, do not outweigh the others.
        tiny = torch.finfo(power.dtype).tiny
        ratios = (at + tiny) / (around + tiny)
        found[f"grid_{period}"] = float(10 * torch.log10(ratios.mean()))
        excess += float(((at - around).clamp(min=0) * weights).sum())
    found[LEVEL] = excess**0.5
    return found


def _point_powers(power: Tensor, period: int) -> tuple[Tensor, Tensor, Tensor]:
    """(power at a period's points, mean power around each, how often each counts), (points,)."""
    height, width = power.shape
    at, around, weights = [], [], []
    steps = torch.arange(NEAREST, FARTHEST + 1)
    offsets = torch.cat([steps, -steps])
    for row, column in _points(period):
        y, x = row * height // period, column * width // period
        at.append(power[y, x])
        # Only along the point's own frequencies: there is far more power beside an axis than on it.
        near = [power[y, (x + offsets) % width]] if column else []
        near += [power[(y + offsets) % height, x]] if row else []
        around.append(torch.cat(near).mean())
        # A wave is two points of the plane, one of them in _points, unless it is its own mirror.
        weights.append(1.0 if 2 * row % period == 0 and 2 * column % period == 0 else 2.0)
    return torch.stack(at), torch.stack(around), power.new_tensor(weights)


def _points(period: int) -> list[tuple[int, int]]:
    """Multiples of 1/period that are not multiples of 2/period; half of the plane is enough."""
    half = period // 2
    return [
        (row, column)
        for row in range(period)
        for column in range(half + 1)
        if (row % 2 or column % 2) and not (column in (0, half) and row > half)
    ]


class Grid(Measure):
    """The pattern's power at each period, less the ground truth's where there is one, and its
    strength as it is."""

    def __init__(self, specs: tuple[MetricSpec, ...]) -> None:
        self.specs = specs

    def update(self, frame_set: FrameSet) -> dict[str, float]:
        found = grid_power(_finished(frame_set.restored))
        if frame_set.hq is not None:
            true = grid_power(_finished(frame_set.hq))
            found = {k: v if k == LEVEL else v - true[k] for k, v in found.items()}
        names = [spec.name for spec in self.specs]
        return {name: found[name] for name in names if np.isfinite(found.get(name, np.nan))}


def _finished(frame: Tensor) -> Tensor:
    return (255 * frame.clamp(0, 1)).round() / 255
