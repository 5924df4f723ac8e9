"""Stable Diffusion's VAE in tiles: close to the whole, and no line where tiles meet."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from dloral.models.tiled_vae import decode_in_tiles, encode_in_tiles


@pytest.fixture(scope="module")
def vae(reference: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(reference / "sd_base" / "vae").eval()


@pytest.fixture(scope="module")
def frame(reference: Path) -> Tensor:
    """(1,3,256,384) in [-1, 1], of a size that tiles do not divide."""
    pixels = torch.from_numpy(np.array(Image.open(reference / "input_512x512_0.png")))
    return pixels.permute(2, 0, 1)[None, :, :256, :384].float() / 127.5 - 1


@pytest.fixture(scope="module")
def whole(vae: AutoencoderKL, frame: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        latents = vae.encode(frame).latent_dist.mode()
        return latents, vae.decode(latents).sample


@torch.no_grad()
def test_one_tile_is_the_whole(vae: AutoencoderKL, frame: Tensor, whole: tuple[Tensor, Tensor]):
    torch.testing.assert_close(encode_in_tiles(vae, frame, 100), whole[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(decode_in_tiles(vae, whole[0], 100), whole[1], atol=1e-4, rtol=0)


@torch.no_grad()
def test_no_line_where_tiles_meet(vae: AutoencoderKL, whole: tuple[Tensor, Tensor]) -> None:
    """What tiling changes is no steeper across a line than anywhere else; where tiles are blended
    as diffusers does it, it is larger by far."""
    latents, decoded = whole
    changed = decode_in_tiles(vae, latents, 20) - decoded
    for axis in (-1, -2):
        steps = changed.diff(dim=axis).abs()
        at_lines = steps.index_select(axis, torch.arange(159, steps.shape[axis], 160))
        assert at_lines.mean() < 1.2 * steps.mean()
    vae.enable_tiling()
    try:
        vae.tile_sample_min_size, vae.tile_latent_min_size = 160, 20
        blended = vae.decode(latents).sample - decoded
    finally:
        vae.disable_tiling()
    assert changed.abs().mean() < 0.3 * blended.abs().mean()


@torch.no_grad()
def test_tiles_agree_where_they_meet(vae: AutoencoderKL, whole: tuple[Tensor, Tensor]) -> None:
    """The margin is as wide as the outer blocks see: tiles of two layouts, given the same
    statistics, make the same pixels."""
    from dloral.models import tiled_vae

    latents = whole[0]
    narrow = decode_in_tiles(vae, latents, 16)
    margin = tiled_vae.DECODER_MARGIN
    try:
        tiled_vae.DECODER_MARGIN = margin + 6
        wide = decode_in_tiles(vae, latents, 16)
        tiled_vae.DECODER_MARGIN = 2
        short = decode_in_tiles(vae, latents, 16)
    finally:
        tiled_vae.DECODER_MARGIN = margin
    torch.testing.assert_close(narrow, wide, atol=1e-4, rtol=0)
    assert (short - wide).abs().max() > 1e-3


def test_vae_is_left_as_it_was(vae: AutoencoderKL, whole: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        decode_in_tiles(vae, whole[0], 16)
        assert torch.equal(vae.decode(whole[0]).sample, whole[1])
