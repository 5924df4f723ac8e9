"""Regular patterns of 2, 4 and 8 pixels' period, which networks with pixel shuffles like to draw.

A pattern that repeats every p pixels puts all of its power on single points of the picture's
spectrum, at multiples of 1/p; a picture spreads its own smoothly. So the measure (our decision) is
the power at those points over that of their neighbourhood, in dB: about 0 for a picture without a
pattern; 20 means a hundred times the neighbourhood. Where there is a ground truth, its figure is
subtracted, since blinds and tiles are pictures too.
"""

import numpy as np
import torch
from torch import Tensor

from dloral.evaluation.fidelity import luma
from dloral.evaluation.measures import Card, Measure, Moment

PERIODS = (2, 4, 8)
NEAREST, FARTHEST = 3, 8
"""Bins: a neighbourhood is 3 to 8 bins away; a Hann window smears a point over two."""

MULTIPLE = 8
SMALLEST = 64  # pixels a side: below, neighbourhoods of different points overlap


def grid_power(frame: Tensor) -> dict[int, float]:
    """Power at each period of 2, 4 and 8 pixels over its neighbourhood, in dB; (3,H,W) in [0, 1].

    Columns and rows together; empty for frames of fewer than 64 pixels a side.
    """
    height, width = (side // MULTIPLE * MULTIPLE for side in frame.shape[-2:])
    if min(height, width) < SMALLEST:
        return {}
    grey = luma(frame.double())[0, :height, :width]
    window = torch.outer(*(torch.hann_window(side, dtype=grey.dtype) for side in (height, width)))
    power = torch.fft.fft2((grey - grey.mean()) * window.to(grey.device)).abs().square()
    return {period: _over_neighbours(power, period) for period in PERIODS}


def _over_neighbours(power: Tensor, period: int) -> float:
    """10 log10 of the mean power at a period's points over the mean around them."""
    height, width = power.shape
    at, around = [], []
    for row, column in _points(period):
        y, x = row * height // period, column * width // period
        at.append(power[y, x])
        offsets = [offset for step in range(NEAREST, FARTHEST + 1) for offset in (step, -step)]
        # Along the frequencies that the point has: beside an axis lies far more power than on it.
        near = [power[y, (x + offset) % width] for offset in offsets if column]
        near += [power[(y + offset) % height, x] for offset in offsets if row]
        around.append(torch.stack(near).mean())
    tiny = torch.finfo(power.dtype).tiny
    # Point by point, so that the few points of low frequency, where pictures have most of their
    # power, do not outweigh the others.
    ratios = (torch.stack(at) + tiny) / (torch.stack(around) + tiny)
    return float(10 * torch.log10(ratios.mean()))


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
    """The pattern's power at each period, less the ground truth's where there is one."""

    def __init__(self, cards: tuple[Card, ...]) -> None:
        self.cards = cards

    def see(self, moment: Moment) -> dict[str, float]:
        found = grid_power(moment.restored)
        if moment.hq is not None:
            true = grid_power(moment.hq)
            found = {period: value - true[period] for period, value in found.items()}
        values = {f"grid_{period}": value for period, value in found.items()}
        return {name: value for name, value in values.items() if np.isfinite(value)}
