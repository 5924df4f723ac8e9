"""Pixel-unshuffle and pixel-shuffle laid out for the next step: the same numbers as torch's."""

import pytest
import torch
import torch.nn.functional as F

from dloral.models.shuffling import means_of_cells, shuffled, unshuffled

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("factor", [2, 4])
def test_the_same_numbers_as_torch_in_the_next_layer_s_layout(
    factor: int, layout: torch.memory_format
) -> None:
    frames = torch.randn(2, 3, 4 * 3, 4 * 5).contiguous(memory_format=layout)
    folded = unshuffled(frames, factor)
    assert torch.equal(folded, F.pixel_unshuffle(frames, factor))
    assert folded.is_contiguous(memory_format=torch.channels_last)
    features = torch.randn(2, 3 * factor**2, 3, 5).contiguous(memory_format=layout)
    pixels = shuffled(features, factor)
    assert torch.equal(pixels, F.pixel_shuffle(features, factor))
    assert pixels.is_contiguous()


def test_means_are_of_each_cell_and_colour() -> None:
    frames = torch.rand(2, 3, 8, 12)
    found = means_of_cells(unshuffled(frames, 4))
    torch.testing.assert_close(found, F.avg_pool2d(frames, 4))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_gradients_pass() -> None:
    frames = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    there_and_back = shuffled(unshuffled(frames, 4), 4)
    (gradient,) = torch.autograd.grad((there_and_back * frames.detach()).sum(), frames)
    torch.testing.assert_close(gradient, frames.detach())
