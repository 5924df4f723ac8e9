"""A decoder's faint pattern, taken out of frames."""

import pytest
import torch
from torch import Tensor

from dloral.evaluation.grid import LEVEL, grid_power
from dloral.frames import grid as module
from dloral.frames.grid import FAINT, MOST, without_grid
from dloral.frames.sliding import BAND


def soft(height: int = 96, width: int = 120) -> Tensor:
    """Slow colours (1,3,H,W) in [0.2, 0.8]."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    waves = [torch.sin(rows / 31 + n) * torch.cos(columns / (25 + 3 * n)) for n in range(3)]
    return 0.5 + 0.3 * torch.stack(waves)[None]


def mesh(frames: Tensor, period: int, strength: float) -> Tensor:
    """A pattern (1,3,H,W) that each cell of ``period`` pixels has in common, as strong as that."""
    torch.manual_seed(1)
    cell = torch.randn(1, 3, period, period)
    cell = cell - cell.mean(dim=(-1, -2), keepdim=True)
    repeats = [-(-side // period) for side in frames.shape[-2:]]
    height, width = frames.shape[-2:]
    return strength * (cell / cell.std()).repeat(1, 1, *repeats)[..., :height, :width]


@pytest.mark.parametrize(("period", "left"), [(2, 0.01), (4, 0.05), (8, 0.45)])
def test_a_faint_pattern_is_taken_out(period: int, left: float) -> None:
    """Of its power nearly nothing is left, into the corners of a frame of any size; of a pattern of
    large cells more, since slow changes of the picture are fine detail there."""
    clean = soft(93, 118)
    pattern = mesh(clean, period, 0.4 / 255)
    found = without_grid(clean + pattern, period)
    for part in ((...,), (..., slice(8), slice(8)), (..., slice(-8, None), slice(-8, None))):
        assert (found - clean)[part].square().mean() < left * pattern.square().mean()


def test_the_measure_sees_none_either() -> None:
    noisy = soft() + 0.5 / 255 * torch.randn(1, 3, 96, 120)
    meshed = noisy + mesh(noisy, 4, 0.5 / 255)
    before, after = (grid_power(frames[0]) for frames in (meshed, without_grid(meshed, 4)))
    assert before["grid_4"] > 15
    assert after["grid_4"] < 1
    assert after[LEVEL] < 0.2 * before[LEVEL]


def test_a_pattern_beside_an_edge_is_taken_out_and_the_edge_stays() -> None:
    """The edge is not taken for a pattern of the flat ground beside it."""
    clean = soft()
    clean[..., 50:] -= 0.2
    pattern = mesh(clean, 4, 0.4 / 255)
    found = without_grid(clean + pattern, 4)
    assert 255 * (without_grid(clean, 4) - clean).abs().max() < 0.2
    beside = (..., slice(54, 70))
    assert (found - clean)[beside].square().mean() < 0.05 * pattern.square().mean()


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_patterns_of_the_picture_stay(side: int) -> None:
    """A chessboard, however fine."""
    rows, columns = torch.arange(64) // side, torch.arange(64) // side
    board = ((rows[:, None] + columns) % 2).float().expand(1, 3, 64, 64)
    assert (without_grid(board, 4) - board).abs().max() < 1e-4
    pale = 0.5 + 20 / 255 * board
    assert (without_grid(pale, 4) - pale).abs().max() < 0.1 / 255


def test_ramps_and_flat_colours_stay() -> None:
    ramp = (torch.linspace(0, 1, 80) + torch.linspace(0, 1, 64)[:, None]).expand(1, 3, 64, 80) / 2
    torch.testing.assert_close(without_grid(ramp, 4), ramp, atol=1e-6, rtol=0)
    flat = torch.full((2, 3, 30, 41), 0.3)
    torch.testing.assert_close(without_grid(flat, 4), flat)


def test_no_pixel_is_changed_by_much() -> None:
    torch.manual_seed(0)
    frames = 0.5 + torch.rand(1, 3, 64, 64) * 4 * FAINT
    assert (without_grid(frames, 4) - frames).abs().max() <= MOST + 1e-6
    assert without_grid(frames, 0) is frames


def test_bands_are_of_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = soft(150, 37) + 1 / 255 * torch.randn(2, 3, 150, 37)
    whole = without_grid(frames, 4)
    with monkeypatch.context() as patched:
        patched.setattr(module, "BAND", 1)
        assert torch.equal(without_grid(frames, 4), whole)
    large = torch.rand(1, 3, 300, 700)
    assert large[0, 0].numel() > BAND
    found = without_grid(large, 4)
    monkeypatch.setattr(module, "BAND", 10**9)
    assert torch.equal(without_grid(large, 4), found)


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (20, 3), (4, 4)])
def test_frames_smaller_than_what_it_looks_at(size: tuple[int, int]) -> None:
    frames = torch.rand(1, 3, *size)
    found = without_grid(frames, 4)
    assert found.shape == frames.shape
    assert (found - frames).abs().max() <= MOST + 1e-6
