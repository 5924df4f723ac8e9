"""A compact pipeline with fresh weights: its sizes, and how it starts."""

from dataclasses import dataclass
from pathlib import Path

import torch

from dloral.errors import WeightsError
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet
from dloral.models.unet import TwoLoRAUNet, plain_state_dict
from dloral.models.vae import CompactVAE
from dloral.pipeline import DLoRALPipeline
from dloral.weights.srvgg import load_srvgg
from dloral.weights.torch_folder import load_torch_pipeline


@dataclass(frozen=True)
class CompactSizes:
    """Widths of the compact model (our decision; measured in docs/decisions.md)."""

    latent_channels: int = 32
    vae_width: int = 64
    encoder_blocks: int = 3
    decoder_blocks: int = 6
    unet_channels: tuple[int, ...] = (128, 192)
    flow_levels: int = 5
    flow_channels: tuple[int, ...] = (24, 32, 24, 16)
    retrieval_heads: int = 2
    retrieval_head_dim: int = 32
    finish_channels: int = 8
    decoder_sees_input: bool = False
    upsample: bool = False
    trunk_depth: int = 0


def build_pipeline(sizes: CompactSizes, seed: int = 0) -> DLoRALPipeline:
    """A compact pipeline with fresh weights and no LoRAs yet; it starts as bicubic, nearly."""
    torch.manual_seed(seed)
    channels = sizes.latent_channels
    unet = TwoLoRAUNet(
        in_channels=2 * channels,
        out_channels=channels,
        down_block_types=("DownBlock2D",) * len(sizes.unet_channels),
        up_block_types=("UpBlock2D",) * len(sizes.unet_channels),
        mid_block_type="UNetMidBlock2D",
        block_out_channels=sizes.unet_channels,
        layers_per_block=1,
        norm_num_groups=8,
    )
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    pipe = DLoRALPipeline(
        vae=CompactVAE(
            channels,
            sizes.vae_width,
            sizes.encoder_blocks,
            sizes.decoder_blocks,
            sizes.finish_channels,
            decoder_sees_input=sizes.decoder_sees_input,
            upsample=sizes.upsample,
            trunk_depth=sizes.trunk_depth,
        ),
        unet=unet,
        flow=SPyNet(sizes.flow_levels, sizes.flow_channels),
        retrieval=CrossFrameRetrieval(
            channels, sizes.retrieval_heads, sizes.retrieval_head_dim, temperature=None
        ),
        decoder_adds_input=True,
        color_fix="wavelet",
    )
    return pipe.channels_last()


def start_trunk(pipe: DLoRALPipeline, network: Path) -> None:
    """The decoder's trunk from a network's file; raises :class:`WeightsError` for other sizes."""
    try:
        pipe.vae.decoder.start_from(load_srvgg(network))
    except ValueError as error:
        raise WeightsError(
            "{path} is {found}",
            remedy="give realesr-general-x4v3, or sizes.trunk_depth=0",
            path=network,
            found=str(error),
        ) from error


def take_over(pipe: DLoRALPipeline, model: str) -> None:
    """Copy into ``pipe`` the flow net of a compact model, and of its VAE and UNet, without LoRAs,
    what has the same name and shape; raises :class:`WeightsError` where the flow nets differ."""
    other = load_torch_pipeline(model, device="cpu", dtype="float32")
    taken = {"vae": other.vae, "unet": other.unet, "flow": other.flow}
    for part, module in taken.items():
        had = plain_state_dict(module)
        fresh = getattr(pipe, part).state_dict()
        same = {n: t for n, t in had.items() if n in fresh and t.shape == fresh[n].shape}
        if part == "flow" and same.keys() != fresh.keys():
            raise WeightsError(
                "the flow net of {value} has other sizes",
                remedy="give a compact model, or train without start",
                value=model,
            )
        getattr(pipe, part).load_state_dict(fresh | same)
