"""Tiles of latents: they cover everything and blend to what was there."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dloral.frames.tiles import blend_tiles, tile_size, tile_starts, tile_window

SIZES = [
    (96, 97, 96, 32),
    (64, 160, 96, 32),
    (20, 30, 8, 3),
    (3, 200, 10, 5),  # thinner than the overlap: no square tile could advance
    (1, 50, 4, 2),
    (50, 1, 4, 2),
    (6, 40, 10, 5),
    (13, 29, 7, 0),
]


@pytest.mark.parametrize(("height", "width", "tile", "overlap"), SIZES)
def test_tiles_cover_every_cell(height: int, width: int, tile: int, overlap: int) -> None:
    rows, columns = tile_size(height, width, tile, overlap)
    assert max(rows, columns) <= tile
    for size, side in ((height, rows), (width, columns)):
        starts = tile_starts(size, side, overlap)
        covered = {cell for start in starts for cell in range(start, start + side)}
        assert covered == set(range(size))
        steps = [after - before for before, after in pairwise(starts)]
        assert all(0 < step <= side - overlap for step in steps)


@pytest.mark.parametrize(("height", "width", "tile", "overlap"), SIZES)
def test_tiles_of_a_picture_blend_to_the_picture(
    height: int, width: int, tile: int, overlap: int
) -> None:
    picture = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    calls: list[tuple[int, int]] = []

    def compute(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        part = picture[..., rows, columns]
        calls.append(tuple(part.shape[-2:]))
        return part, torch.ones_like(part)

    whole, ones = blend_tiles(compute, height, width, tile, overlap)
    torch.testing.assert_close(whole, picture, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ones, torch.ones_like(picture), atol=1e-6, rtol=0)
    if height * width > tile**2:
        assert len(calls) > 1
    assert set(calls) == {tile_size(height, width, tile, overlap)} or len(calls) == 1


@pytest.mark.parametrize(("tile", "size"), [(None, 500), (96, 96), (96, 50)])
def test_small_latents_are_not_tiled(tile: int | None, size: int) -> None:
    calls = []

    def compute(rows: slice, columns: slice) -> list[Tensor]:
        calls.append((rows, columns))
        return [torch.zeros(1, 1, size, size)]

    blend_tiles(compute, size, size, tile, 32)
    assert calls == [(slice(0, size), slice(0, size))]


def test_layout_of_the_reference() -> None:
    """Stride is tile - overlap; the last tile lies flush with the border."""
    assert tile_size(64, 160, 96, 32) == (64, 64)
    assert tile_starts(160, 64, 32) == [0, 32, 64, 96]
    assert tile_starts(170, 64, 32) == [0, 32, 64, 96, 106]


def test_window_is_the_references() -> None:
    """Variance 0.01 of the size squared, centred on (width-1)/2 across and height/2 down."""
    window = tile_window(10, 9)
    assert window.shape == (10, 9)
    assert window.argmax().item() == 5 * 9 + 4
    torch.testing.assert_close(window, window.flip(1))
    expected = torch.exp(torch.tensor(-((2 / 10) ** 2) / 0.02))
    torch.testing.assert_close(window[3, 4] / window[5, 4], expected)


def test_dtype_is_kept_and_sums_are_float32() -> None:
    picture = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    (whole,) = blend_tiles(lambda rows, columns: [picture[..., rows, columns]], 12, 12, 8, 4)
    assert torch.equal(whole, picture)
