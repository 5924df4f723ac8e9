"""The grid measure on patterns of known strength."""

import math

import pytest
import torch
from torch import Tensor

from dloral.evaluation.catalogue import METRIC_SPECS
from dloral.evaluation.grid import SMALLEST, Grid, grid_power
from dloral.evaluation.measures import FrameSet

STUDIO = 219 / 255  # luma of grey, in studio range


def pattern(kind: str, height: int, width: int) -> Tensor:
    """A pattern (H,W) of amplitude 1."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    if kind == "checkerboard 2":
        return (x + y) % 2 * 2.0 - 1
    if kind == "columns 4":
        return ((x % 4 < 2) * 2.0 - 1).expand(height, width)
    if kind == "wave 8":
        return torch.cos(2 * math.pi * y / 8).expand(height, width)
    return ((x % 8 == 0) & (y % 8 == 0)).float()  # "dots 8"


@pytest.mark.parametrize("kind", ["checkerboard 2", "columns 4", "wave 8"])
@pytest.mark.parametrize("levels", [3.0, 6.0])
def test_a_pattern_is_found_at_its_period_and_strength(
    pictures: list[Tensor], kind: str, levels: float
) -> None:
    period = f"grid_{kind.split()[1]}"
    for picture in pictures[:4]:
        smooth = 0.2 + 0.6 * torch.nn.functional.avg_pool2d(picture[None], 9, 1, 4)[0]
        drawn = pattern(kind, *picture.shape[-2:]) * levels / 255
        before, after = grid_power(smooth), grid_power(smooth + drawn)
        assert after[period] > before[period] + 5
        others = {"grid_2", "grid_4", "grid_8"} - {period}
        assert all(abs(after[name] - before[name]) < 3 for name in others)
        rms = levels * STUDIO * drawn.square().mean().sqrt().item() / (levels / 255)
        assert after["grid_level"] == pytest.approx(rms, rel=0.1)


def test_dots_of_eight_pixels_hold_all_three_periods(pictures: list[Tensor]) -> None:
    """As a pixel shuffle draws them: every harmonic of 1/8."""
    smooth = 0.2 + 0.6 * torch.nn.functional.avg_pool2d(pictures[4][None], 9, 1, 4)[0]
    found = grid_power(smooth + pattern("dots 8", *smooth.shape[-2:]) * 8 / 255)
    before = grid_power(smooth)
    for name in ("grid_2", "grid_4", "grid_8"):
        assert found[name] > before[name] + 10


def test_photographs_have_none(pictures: list[Tensor]) -> None:
    for picture in pictures:
        found = grid_power(picture)
        assert max(found["grid_4"], found["grid_8"]) < 6


def test_the_truths_own_pattern_does_not_count(pictures: list[Tensor]) -> None:
    striped = 0.2 + 0.6 * pictures[0] + pattern("columns 4", *pictures[0].shape[-2:]) * 5 / 255
    specs = tuple(METRIC_SPECS[name] for name in ("grid_4", "grid_level"))
    assert Grid(specs).update(FrameSet(striped))["grid_4"] > 10
    assert Grid(specs).update(FrameSet(striped, striped))["grid_4"] == 0


def test_pictures_are_measured_as_finished_ones(pictures: list[Tensor]) -> None:
    specs = tuple(METRIC_SPECS[name] for name in ("grid_2", "grid_8", "grid_level"))
    output = 0.2 + 0.6 * torch.nn.functional.avg_pool2d(pictures[0][None], 9, 1, 4)[0]
    finished = (255 * output).round() / 255
    assert Grid(specs).update(FrameSet(output, pictures[0])) == Grid(specs).update(
        FrameSet(finished, pictures[0])
    )
    assert Grid(specs).update(FrameSet(output, finished))["grid_8"] == 0


def test_small_and_odd_frames() -> None:
    assert grid_power(torch.rand(3, 79, 200)) == {}
    assert set(grid_power(torch.rand(3, 87, 203))) == {"grid_2", "grid_4", "grid_8", "grid_level"}


@pytest.mark.parametrize("name", ["grid_2", "grid_4", "grid_8", "grid_level"])
def test_the_smallest_frames_are_measured_as_larger_ones(name: str) -> None:
    """Strong dots, on which a neighbourhood that holds another point shows most."""
    noise = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0)) / 255
    dotted = 0.4 + noise + 100 / 255 * pattern("dots 8", 128, 128)
    small = grid_power(dotted[:, :SMALLEST, :SMALLEST])
    large = grid_power(dotted)
    # Noise is spread over the points of the spectrum, which larger frames have more of.
    spread = 0 if name == "grid_level" else 20 * math.log10(128 / SMALLEST)
    tolerance = 0.1 if name == "grid_level" else 2
    assert small[name] + spread == pytest.approx(large[name], abs=tolerance)
