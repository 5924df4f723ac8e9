"""The compact model's recipe: its sizes, and the trainings that make it, in order.

    python -m dloral.training.compact base --packs PACKS --run RUN
"""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet
from dloral.models.unet import TwoLoRAUNet
from dloral.models.vae import CompactVAE
from dloral.pipeline import DLoRALPipeline
from dloral.training.base import BaseConfig, BaseTask, StillPack
from dloral.training.trainer import LoopConfig, train


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
        vae=CompactVAE(channels, sizes.vae_width, sizes.encoder_blocks, sizes.decoder_blocks),
        unet=unet,
        flow=SPyNet(sizes.flow_levels, sizes.flow_channels),
        retrieval=CrossFrameRetrieval(
            channels, sizes.retrieval_heads, sizes.retrieval_head_dim
        ),
        decoder_adds_input=True,
    )
    return pipe.channels_last()


def train_base(packs: Path, run: Path, loop: LoopConfig, config: BaseConfig) -> None:
    pipe = build_pipeline(CompactSizes(), loop.seed)
    task = BaseTask(pipe, StillPack(packs / "still"), StillPack(packs / "heldout_still"), config)
    train(task, loop, run)
    pipe.save_pretrained(run / "pipeline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=["base"])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    for field in fields(LoopConfig):
        if field.name in ("steps", "decay_steps", "learning_rate", "evaluate_every", "seed"):
            kind = float if field.name == "learning_rate" else int
            parser.add_argument("--" + field.name.replace("_", "-"), type=kind)
    given = vars(parser.parse_args())
    phase, packs, run = given.pop("phase"), given.pop("packs"), given.pop("run")
    overrides = {name: value for name, value in given.items() if value is not None}
    assert phase == "base"
    train_base(packs, run, LoopConfig(**{"steps": 12000} | overrides), BaseConfig())


if __name__ == "__main__":
    main()
