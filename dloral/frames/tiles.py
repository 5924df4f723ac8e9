"""Overlapping tiles of latents, blended under a Gaussian window.

The layout and the window are the reference's (notes, "latent tiling"), so that with tile 96 and
overlap 32 the released weights give the reference's result.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

VARIANCE = 0.01  # of the window, in units of the tile's size squared


def tile_size(height: int, width: int, tile: int, overlap: int) -> tuple[int, int]:
    """Rows and columns of a tile: the reference's square of ``min(tile, height, width)``, except
    where one side is no longer than the overlap: there a square could not advance (our decision).
    """
    side = min(tile, height, width)
    if side > overlap:
        return side, side
    return min(tile, height), min(tile, width)


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """First cells of the tiles along one side; the last tile lies flush with the border."""
    if tile >= size:
        return [0]
    return [*range(0, size - tile, tile - overlap), size - tile]


def tile_window(height: int, width: int) -> Tensor:
    """Blending weights (height, width), float32; x is centred on (width-1)/2, y on height/2."""
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) / width
    y = (torch.arange(height, dtype=torch.float64) - height / 2) / height
    bells = [torch.exp(-(side**2) / (2 * VARIANCE)) for side in (y, x)]
    return torch.outer(*bells).float()


def tiles_of(height: int, width: int, tile: int | None, overlap: int) -> list[tuple[slice, slice]]:
    """(rows, columns) of every tile of height x width cells, row by row; the whole as one where
    ``tile`` is None or has no fewer cells."""
    if tile is None or height * width <= tile**2:
        return [(slice(0, height), slice(0, width))]
    rows, columns = tile_size(height, width, tile, overlap)
    return [
        (slice(top, top + rows), slice(left, left + columns))
        for top in tile_starts(height, rows, overlap)
        for left in tile_starts(width, columns, overlap)
    ]


def blend_tiles(
    compute: Callable[[slice, slice], Sequence[Tensor]],
    height: int,
    width: int,
    tile: int | None,
    overlap: int,
) -> list[Tensor]:
    """Blend what ``compute(rows, columns)`` returns for each tile into whole (B,C,height,width).

    ``tile`` and ``overlap`` are in latent cells. With ``tile=None``, or latents of no more cells
    than a tile has, ``compute`` is called once and nothing is blended.
    """
    areas = tiles_of(height, width, tile, overlap)
    if len(areas) == 1:
        return list(compute(*areas[0]))
    rows, columns = (side.stop - side.start for side in areas[0])
    window = tile_window(rows, columns)
    sums: list[Tensor] = []
    weight: Tensor | None = None
    for area in areas:
        parts = compute(*area)
        place = (..., *area)
        if weight is None:
            window = window.to(parts[0].device)
            weight = window.new_zeros(height, width)
            sums = [window.new_zeros(*part.shape[:-2], height, width) for part in parts]
        weight[place] += window
        for total, part in zip(sums, parts, strict=True):
            total[place] += part.float() * window
    assert weight is not None
    return [(total / weight).to(parts[0].dtype) for total in sums]
