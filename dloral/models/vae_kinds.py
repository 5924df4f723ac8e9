"""What each VAE class can do and needs: one row each, so that no other code checks the class.

Legend: H x W frame size, s latent stride, C latent channels. Sizes are those of the VAE's own
configuration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from dloral.models.tiled_vae import DECODER_MARGIN, cell_of, decode_in_tiles, encode_in_tiles
from dloral.models.vae import FOLD, CompactVAE

VAE_FEATURES = 3.5
"""How often the widest layer at full size is held at a time: input, normalised, activated, output
of a convolution. Measured on Stable Diffusion's decoder in float32 on a CPU: resident memory grew
by 5.0 of it at 256 x 256 pixels and by 4.1 at 384 x 384, which is 3.4 and 0.1 GB."""

STABLE_DIFFUSION = "Stable Diffusion"

Tiled = Callable[[Any, Tensor, int], Tensor]


@dataclass(frozen=True)
class VAEKind:
    """``latents``: the name of its latent space; another VAE of the same space may replace it.

    ``stride``: pixels per latent cell. ``widths``: channels at full size on the way in, and out.
    ``encode_in_tiles``, ``decode_in_tiles``: (vae, picture or latents, cells of a tile), None if it
    is only run whole. ``fold``: places a side that a cell's channels hold, for warping.
    """

    latents: str
    stride: Callable[[Any], int]
    widths: Callable[[Any], tuple[int, int]]
    encode_in_tiles: Tiled | None = None
    decode_in_tiles: Tiled | None = None
    fold: Callable[[Any], int] = lambda vae: 1

    @property
    def has_tiles(self) -> bool:
        return self.encode_in_tiles is not None

    def needed_memory(
        self, vae: Any, height: int, width: int, vae_tile: int | None, encodes_only: bool
    ) -> int:
        """Approximate peak memory in bytes for a frame of ``height`` x ``width`` pixels."""
        if not self.has_tiles:
            return height * width * 64 * 4
        if vae_tile:
            side = self.stride(vae) * (vae_tile + 2 * DECODER_MARGIN)
            height, width = min(height, side), min(width, side)
        way_in, way_out = self.widths(vae)
        widest = way_in if encodes_only else way_out
        return int(VAE_FEATURES * height * width * widest * vae.dtype.itemsize)


def _widths(vae: AutoencoderKL) -> tuple[int, int]:
    # Full size holds the second width on the way out, and the first on the way in.
    widths = vae.config.block_out_channels
    return widths[0], widths[min(1, len(widths) - 1)]


KINDS: dict[type, VAEKind] = {
    AutoencoderKL: VAEKind(
        STABLE_DIFFUSION,
        stride=cell_of,
        widths=_widths,
        encode_in_tiles=encode_in_tiles,
        decode_in_tiles=decode_in_tiles,
    ),
    AutoencoderTiny: VAEKind(
        STABLE_DIFFUSION,
        stride=lambda vae: 2 ** (len(vae.config.encoder_block_out_channels) - 1),
        widths=lambda vae: (vae.config.encoder_block_out_channels[0],) * 2,
    ),
    CompactVAE: VAEKind(
        "compact",
        stride=lambda vae: vae.latent_stride,
        widths=lambda vae: (vae.config.width,) * 2,
        fold=lambda vae: FOLD if vae.config.small_picture else 1,
    ),
}


def kind_of(vae: Any) -> VAEKind:
    """The row of a VAE's class, or of its nearest base class."""
    for kind in type(vae).__mro__:
        if kind in KINDS:
            return KINDS[kind]
    raise TypeError(f"a {type(vae).__name__} is no VAE that this version knows")


def encode(vae: Any, pictures: Tensor, tile: int | None = None) -> Tensor:
    """Pictures (B,3,H,W) in [-1, 1] -> latents (B,C,H/s,W/s), scaled; the distribution's mean."""
    in_tiles = kind_of(vae).encode_in_tiles
    if tile and in_tiles:
        return in_tiles(vae, pictures, tile) * vae.config.scaling_factor
    encoded = vae.encode(pictures)
    latents = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded[0]
    return latents * vae.config.scaling_factor


def decode(
    vae: Any, latents: Tensor, lq_frames: Tensor | None = None, tile: int | None = None
) -> Tensor:
    """Scaled latents -> what the decoder gives, float32 (B,3,H,W) in about [-1, 1].

    ``lq_frames`` (B,3,H,W) in [0, 1]: the bicubic frame, for a decoder whose own configuration says
    that it sees it.
    """
    in_tiles = kind_of(vae).decode_in_tiles
    unscaled = latents / vae.config.scaling_factor
    if tile and in_tiles:
        return in_tiles(vae, unscaled, tile).float()
    if lq_frames is not None and vae.config.get("decoder_sees_input"):
        return vae.decode(unscaled, lq_frames=2 * lq_frames - 1).sample.float()
    return vae.decode(unscaled).sample.float()
