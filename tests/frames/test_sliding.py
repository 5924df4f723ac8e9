"""Sums, minima and maxima over the square around each pixel."""

import pytest
import torch
import torch.nn.functional as F

from dloral.frames.sliding import in_a_row, sliding, sliding_mean


@pytest.mark.parametrize("side", [3, 5, 9])
def test_as_torchs_pooling(side: int) -> None:
    frames = torch.rand(2, 3, 20, 23)
    assert torch.equal(sliding(frames, side, torch.maximum), F.max_pool2d(frames, side, 1))
    assert torch.equal(sliding(frames, side, torch.minimum), -F.max_pool2d(-frames, side, 1))
    torch.testing.assert_close(sliding_mean(frames, side), F.avg_pool2d(frames, side, 1))


def test_pixels_some_steps_apart() -> None:
    frames = torch.rand(1, 2, 30, 40)
    found = sliding(frames, 5, torch.add, step=4)
    cells = F.pixel_unshuffle(F.pad(frames, (0, 0, 0, 2)), 4)
    wanted = 25 * F.pixel_shuffle(F.avg_pool2d(cells, 5, 1), 4)
    torch.testing.assert_close(found[..., :12, :], wanted[..., : found.shape[-2], :][..., :12, :])
    assert found.shape == (1, 2, 30 - 16, 40 - 16)
    pairs = in_a_row(frames, 2, -1, torch.add, step=3)
    assert torch.equal(pairs, frames[..., :-3] + frames[..., 3:])
