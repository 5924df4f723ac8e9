"""Enlargement, small frames for the flow net, padding."""

import numpy as np
import pytest
import torch
from PIL import Image

from dloral.frames.resize import (
    enlargement,
    pad_to_latent_grid,
    resize_bicubic,
    resize_bicubic_part,
    shrink_for_flow,
)


def test_same_size_is_the_same_frame() -> None:
    frames = torch.rand(1, 3, 5, 7)
    assert resize_bicubic(frames, 5, 7) is frames


def test_constant_and_ramp_survive_enlargement() -> None:
    ramp = torch.linspace(0.2, 0.8, 16).expand(1, 3, 16, 16)
    large = resize_bicubic(ramp, 64, 64)
    # Pixel centres are kept: output pixel i lies at (i + 0.5) / 4 - 0.5 of the input.
    places = (torch.arange(64) + 0.5) / 4 - 0.5
    inside = slice(8, -8)  # bicubic with a = -0.75 bends a ramp by up to 2e-3
    expected = 0.2 + 0.6 * places / 15
    torch.testing.assert_close(large[0, 0, 0, inside], expected[inside], atol=2e-3, rtol=0)


def test_an_enlargement_is_that_of_the_sides() -> None:
    assert enlargement((24, 40), (48, 80)) == 2
    assert enlargement((24, 40), (96, 40)) == 2


def test_overshoot_is_clamped() -> None:
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    large = resize_bicubic(edge, 32, 32)
    assert large.min() == 0
    assert large.max() == 1


def test_pil_is_pillow_s_kernel() -> None:
    picture = np.random.default_rng(0).integers(80, 176, (9, 7, 3), dtype=np.uint8)
    pillow = np.asarray(Image.fromarray(picture).resize((28, 36), Image.Resampling.BICUBIC))
    frames = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    ours, torchs = (
        (255 * resize_bicubic(frames, 36, 28, kernel)[0]).permute(1, 2, 0).numpy()
        for kernel in ("pil", "torch")
    )
    assert np.abs(ours - pillow).max() < 1.5  # Pillow rounds to bytes, twice
    assert np.abs(torchs - pillow).max() > 5


@pytest.mark.parametrize(
    ("size", "padded"),
    [((1, 1), (8, 8)), ((8, 16), (8, 16)), ((9, 15), (16, 16)), ((50, 61), (56, 64))],
)
def test_padding_repeats_the_border(size: tuple[int, int], padded: tuple[int, int]) -> None:
    frames = torch.rand(2, 3, *size)
    result = pad_to_latent_grid(frames)
    height, width = size
    assert result.shape[-2:] == padded
    assert torch.equal(result[..., :height, :width], frames)
    assert (result[..., height:, :width] == frames[..., -1:, :]).all()
    assert (result[..., :height, width:] == frames[..., :, -1:]).all()


@pytest.mark.parametrize("size", [(8, 8), (8, 240), (1080, 24)])
def test_small_frames_have_latent_size(size: tuple[int, int]) -> None:
    small = shrink_for_flow(torch.full((1, 3, *size), 0.25))
    assert small.shape[-2:] == (size[0] // 8, size[1] // 8)
    torch.testing.assert_close(small, torch.full_like(small, 0.25))


def test_small_frames_are_not_antialiased() -> None:
    """Each small pixel reads the four pixels around its centre alone, as the weights expect."""
    frames = torch.rand(1, 1, 32, 32)
    other = frames.clone()
    other[..., 0, 0] = 1 - other[..., 0, 0]
    assert torch.equal(shrink_for_flow(frames), shrink_for_flow(other))


@pytest.mark.parametrize(("height", "width"), [(68, 93), (17, 23), (21, 90), (9, 40)])
def test_a_part_of_an_enlargement_is_that_part(height, width):
    frames = torch.rand(2, 3, 17, 23, generator=torch.Generator().manual_seed(0))
    whole = resize_bicubic(frames, height, width)
    for rows, columns in (((0, 5), (2, 3)), ((4, 9), (0, 23)), ((8, 9), (20, 23))):
        part = resize_bicubic_part(frames, height, width, rows, columns)
        wanted = whole[..., rows[0] : rows[1], columns[0] : columns[1]]
        torch.testing.assert_close(part, wanted, atol=1e-5, rtol=0)
