"""A compact pipeline with fresh weights: its sizes, and how it starts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dloral.errors import WeightsError
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet
from dloral.models.unet import TwoLoRAUNet, plain_state_dict
from dloral.models.vae import CompactVAE
from dloral.pipeline import DLoRALPipeline
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
    retrieval_reduction: int = 1
    finish_channels: int = 8
    decoder_sees_input: bool = False
    upsample: bool = False
    direct_head: bool = False


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
            direct_head=sizes.direct_head,
        ),
        unet=unet,
        flow=SPyNet(sizes.flow_levels, sizes.flow_channels),
        retrieval=CrossFrameRetrieval(
            channels,
            sizes.retrieval_heads,
            sizes.retrieval_head_dim,
            temperature=None,
            key_reduction=sizes.retrieval_reduction,
        ),
        decoder_adds_input=True,
        color_fix="wavelet",
    )
    return pipe.channels_last()


def take_over(pipe: DLoRALPipeline, model: str) -> None:
    """Copy into ``pipe`` the flow net of a compact model, and of its VAE and UNet, without LoRAs,
    what has the same name and shape; raises :class:`WeightsError` where the flow nets differ.

    Blocks that a deeper decoder has more come after the model's own, and start as no change.
    """
    other = load_torch_pipeline(model, device="cpu", dtype="float32")
    taken = {"vae": other.vae, "unet": other.unet, "flow": other.flow}
    for part, module in taken.items():
        had = plain_state_dict(module)
        if part == "vae" and isinstance(module, CompactVAE):
            blocks = module.config.decoder_blocks
            had = _with_more_blocks(had, 2 + blocks, pipe.vae.config.decoder_blocks - blocks)
        fresh = getattr(pipe, part).state_dict()
        same = {n: t for n, t in had.items() if n in fresh and t.shape == fresh[n].shape}
        if part == "flow" and same.keys() != fresh.keys():
            raise WeightsError(
                "the flow net of {value} has other sizes",
                remedy="give a compact model, or train without start",
                value=model,
            )
        getattr(pipe, part).load_state_dict(fresh | same)


def _with_more_blocks(had: dict[str, Tensor], blocks_end: int, more: int) -> dict[str, Tensor]:
    """A VAE's weights under the names they have with ``more`` decoder blocks before the layer
    ``blocks_end``."""
    renamed = {}
    for name, tensor in had.items():
        part, index, *rest = name.split(".")
        if part == "decoder" and int(index) >= blocks_end:
            index = str(int(index) + max(more, 0))
        renamed[".".join([part, index, *rest])] = tensor
    return renamed
