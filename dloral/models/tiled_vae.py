"""Stable Diffusion's VAE in tiles, without seams: less memory, the same picture.

Legend: B batch, H x W frame size, h x w latent cells, F features of the inner blocks.

What ties a pixel to the whole frame is the inner block's attention and the statistics of the group
normalisations. The inner block works on cells, where memory is no concern, and is run whole. The
outer blocks, which work on pixels, are run tile by tile, all with the same statistics and with a
margin as wide as their receptive field, so two tiles agree exactly where they meet, and nothing is
blended. The statistics come from a first pass over the tiles. They differ slightly from the whole
frame's, since in that pass a tile's deeper layers see features normalised by its own statistics:
the picture as a whole may differ a little from an untiled one, but without seams.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from dloral.devices import wide_device

DECODER_MARGIN, ENCODER_MARGIN = 13, 9
"""Cells that the outer blocks see on each side: their 3x3 convolutions, by their resolution. The
sums, 6 + 3 + 1.5 ... and 4 + 2 + 1 ..., stay below these for any number of resolutions."""

Area = tuple[slice, slice]


def cell_of(vae: AutoencoderKL) -> int:
    """Pixels a side of a latent cell: each resolution but the last halves the frame."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


@apply_forward_hook  # for CPU offloading, as on the VAE's own method
def decode_in_tiles(vae: AutoencoderKL, latents: Tensor, tile: int) -> Tensor:
    """``vae.decode(latents).sample``, (B,C,h,w) -> (B,3,H,W), ``tile`` cells a side at a time."""
    decoder = vae.decoder
    inner = latents if vae.post_quant_conv is None else vae.post_quant_conv(latents)
    inner = decoder.mid_block(decoder.conv_in(inner))

    def outer(features: Tensor) -> Tensor:
        for block in decoder.up_blocks:
            features = block(features)
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(features)))

    norms = [*_norms(decoder.up_blocks), decoder.conv_norm_out]
    return _tiled(outer, norms, inner, tile, DECODER_MARGIN, 1, cell_of(vae))


@apply_forward_hook
def encode_in_tiles(vae: AutoencoderKL, frames: Tensor, tile: int) -> Tensor:
    """``vae.encode(frames).latent_dist.mode()``, (B,3,H,W) -> (B,C,h,w), tile by tile."""
    encoder = vae.encoder

    def outer(pixels: Tensor) -> Tensor:
        features = encoder.conv_in(pixels)
        for block in encoder.down_blocks:
            features = block(features)
        return features

    norms = _norms(encoder.down_blocks)
    inner = _tiled(outer, norms, frames, tile, ENCODER_MARGIN, cell_of(vae), 1)
    inner = encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(inner)))
    moments = encoder.conv_out(inner)
    if vae.quant_conv is not None:
        moments = vae.quant_conv(moments)
    return moments.chunk(2, dim=1)[0]


def _norms(blocks: nn.Module) -> list[nn.GroupNorm]:
    return [part for part in blocks.modules() if isinstance(part, nn.GroupNorm)]


def _tiled(
    outer: Callable[[Tensor], Tensor],
    norms: list[nn.GroupNorm],
    whole: Tensor,
    tile: int,
    margin: int,
    scale_in: int,
    scale_out: int,
) -> Tensor:
    """``outer(whole)`` tile by tile; scales are pixels per cell, of input and output."""
    height, width = (side // scale_in for side in whole.shape[-2:])
    areas = [
        (slice(top, min(top + tile, height)), slice(left, min(left + tile, width)))
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
    with _shared(norms) as statistics:
        for rows, columns in areas:
            outer(_cut(whole, (rows, columns), scale_in))
        statistics.settle()
        result: Tensor | None = None
        for area in areas:
            wide = tuple(
                slice(max(side.start - margin, 0), min(side.stop + margin, length))
                for side, length in zip(area, (height, width), strict=True)
            )
            done = outer(_cut(whole, (wide[0], wide[1]), scale_in))
            inside = tuple(
                slice(side.start - larger.start, side.stop - larger.start)
                for side, larger in zip(area, wide, strict=True)
            )
            if result is None:
                size = (height * scale_out, width * scale_out)
                result = done.new_empty(*done.shape[:2], *size)
            _cut(result, area, scale_out).copy_(_cut(done, (inside[0], inside[1]), scale_out))
    assert result is not None
    return result


def _cut(picture: Tensor, area: Area, scale: int) -> Tensor:
    rows, columns = (slice(side.start * scale, side.stop * scale) for side in area)
    return picture[..., rows, columns]


class _Statistics:
    """Sums over all tiles, then mean and deviation, of each normalisation's groups."""

    def __init__(self) -> None:
        self._sums: dict[nn.GroupNorm, list[Tensor]] = {}
        self.settled = False

    def settle(self) -> None:
        self.settled = True

    def normalise(self, norm: nn.GroupNorm, features: Tensor) -> Tensor:
        """In place of ``norm(features)``, (B,F,.,.)."""
        if not self.settled:
            self._add(norm, features)
            return F.group_norm(features, norm.num_groups, norm.weight, norm.bias, norm.eps)
        total, squares, count = self._sums[norm]
        mean = total / count
        deviation = (squares / count - mean**2).clamp(min=0).add(norm.eps).sqrt()
        each = features.shape[1] // norm.num_groups
        mean, deviation = (
            value.repeat_interleave(each, dim=1)[..., None, None] for value in (mean, deviation)
        )
        weight = norm.weight[:, None, None].to(deviation.device) / deviation
        shift = norm.bias[:, None, None].to(deviation.device) - mean * weight
        return features * weight.to(features) + shift.to(features)

    def _add(self, norm: nn.GroupNorm, features: Tensor) -> None:
        groups = features.unflatten(1, (norm.num_groups, -1)).flatten(2)
        # Only one number per row in double precision, not a double copy of the features.
        place = wide_device(features.device)
        mean = groups.mean(dim=2, dtype=torch.float32).to(place).double()
        variance = groups.float().var(dim=2, correction=0).to(place).double()
        count = torch.tensor(float(groups.shape[2]), dtype=torch.float64, device=place)
        new = [mean * count, (variance + mean**2) * count, count]
        old = self._sums.get(norm)
        self._sums[norm] = new if old is None else [a + b for a, b in zip(old, new, strict=True)]


@contextmanager
def _shared(norms: list[nn.GroupNorm]) -> Iterator[_Statistics]:
    """While it lasts, ``norms`` use statistics that all tiles have in common."""
    statistics = _Statistics()
    for norm in norms:
        norm.forward = partial(statistics.normalise, norm)  # type: ignore[method-assign]
    try:
        yield statistics
    finally:
        for norm in norms:
            del norm.forward
