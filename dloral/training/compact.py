r"""The compact model's recipe: its sizes, and the trainings that make it, in order.

    python -m dloral.training.compact flow --packs PACKS --run RUNS/flow
    python -m dloral.training.compact base --packs PACKS --run RUNS/base
    python -m dloral.training.compact algorithm1 --packs PACKS --run RUNS/algorithm1 \
        --base RUNS/base/pipeline --flow RUNS/flow/flow
    python -m dloral.training.compact embed --run RUNS/algorithm1

The last puts the result into the package. A training can be stopped and started again with the
same call; it goes on from its last checkpoint.
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dloral.data.packs import Pack, PackClips
from dloral.errors import InputError, exit_status
from dloral.models.adapters import ADAPTERS, add_adapters, lora_layers
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet
from dloral.models.perceptual import load_vgg_trunk
from dloral.models.unet import TwoLoRAUNet, cast
from dloral.models.vae import CompactVAE
from dloral.pipeline import DLoRALPipeline
from dloral.training.algorithm1 import Algorithm1Config, Algorithm1Task, algorithm_1
from dloral.training.base import BaseConfig, BaseTask
from dloral.training.flow import FlowConfig, FlowTask
from dloral.training.losses import FeatureDistance
from dloral.training.preview import HeldOut
from dloral.training.schedule import StageSchedule
from dloral.training.trainer import LoopConfig, Trainer, train
from dloral.weights.resolve import EMBEDDED


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


LORA_RANK = 8
"""Twice the paper's 4: the compact UNet's layers are narrow and few (our decision)."""

COMPACT_SCHEDULE = StageSchedule(
    consistency_steps=200,
    enhancement_steps=200,
    transition_steps=50,
    consistency_weights={"psnr_loss": 1.0, "temporal": 0.15},
    enhancement_weights={"charbonnier": 0.5, "feature": 0.5, "grid": 20.0},
)

LOOPS = {
    "flow": LoopConfig(
        steps=4000,
        learning_rate=1e-3,
        decay_steps=1000,
        evaluate_every=500,
        mixed_precision="auto",
    ),
    "base": LoopConfig(
        steps=10200,
        learning_rate=6e-4,
        decay_steps=1200,
        evaluate_every=400,
        mixed_precision="auto",
    ),
    "algorithm1": LoopConfig(
        steps=1200,
        learning_rate=6e-4,
        decay_steps=200,
        evaluate_every=100,
        ema=0.99,
        mixed_precision="auto",
    ),
}


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
            channels, sizes.retrieval_heads, sizes.retrieval_head_dim, temperature=None
        ),
        decoder_adds_input=True,
        color_fix="wavelet",
    )
    return pipe.channels_last()


def train_flow(packs: Path, run: Path, loop: LoopConfig) -> None:
    """The flow net alone; it needs nothing of the others, so it can run first or beside them."""
    pipe = build_pipeline(CompactSizes(), loop.seed)
    task = FlowTask(
        pipe,
        Pack(packs / "clips"),
        Pack(packs / "still"),
        Pack(packs / "heldout_clips"),
        FlowConfig(),
    )
    train(task, loop, run)
    pipe.flow.save_pretrained(run / "flow")


def train_base(packs: Path, run: Path, loop: LoopConfig) -> None:
    """VAE and UNet on degraded photographs."""
    pipe = build_pipeline(CompactSizes(), loop.seed)
    task = BaseTask(pipe, Pack(packs / "still"), Pack(packs / "heldout_still"), BaseConfig())
    train(task, loop, run)
    pipe.save_pretrained(run / "pipeline")


def train_algorithm1(packs: Path, run: Path, loop: LoopConfig, base: Path, flow: Path) -> None:
    """C-LoRA with CFR, and D-LoRA, in turn, on the frozen base and flow net."""
    pipe = build_pipeline(CompactSizes(), loop.seed)
    pipe.register_modules(
        vae=CompactVAE.from_pretrained(base / "vae"),
        unet=TwoLoRAUNet.from_pretrained(base / "unet"),
        flow=SPyNet.from_pretrained(flow),
    )
    torch.manual_seed(loop.seed)
    add_adapters(pipe.unet, LORA_RANK)
    # Retrieval starts as no change, like the LoRAs.
    torch.nn.init.zeros_(pipe.retrieval.proj.weight)
    torch.nn.init.zeros_(pipe.retrieval.proj.bias)
    config = Algorithm1Config(schedule=COMPACT_SCHEDULE)
    features = FeatureDistance(load_vgg_trunk(blocks=3))
    clips = PackClips(Pack(packs / "clips"), config.clips, config.crop)
    task = Algorithm1Task(pipe, {"consistency": clips, "enhancement": clips}, config, features)
    held_out = HeldOut(task, Pack(packs / "heldout_clips").clips(slice(None)))
    trainer = Trainer(
        task.trainable(),
        loop,
        run,
        buffers=task.buffers(),
        evaluate=held_out.figures,
        picture=held_out.picture,
    )
    algorithm_1(task, trainer)
    pipe.save_pretrained(run / "pipeline")


def embed(pipeline: Path, target: Path, factors: tuple[float, float] = (1.0, 1.0)) -> None:
    """Put a trained pipeline into the package, in half precision; other files there stay.

    ``factors``: what C-LoRA and D-LoRA are multiplied by, so that 1 on a dial is what people want.
    """
    pipe = DLoRALPipeline.from_pretrained(pipeline)
    for layer in lora_layers(pipe.unet):
        for adapter, factor in zip(ADAPTERS, factors, strict=True):
            with torch.no_grad():
                layer.lora_B[adapter].weight *= factor
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            cast(part, torch.float16)
    pipe.save_pretrained(target)
    for path in target.rglob("*.json"):
        # diffusers notes where a part was loaded from: a folder of whoever trained it.
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=["flow", "base", "algorithm1", "embed"])
    parser.add_argument("--packs", type=Path, help="folder of packs (not for embed)")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="pipeline folder of the base run (algorithm1)")
    parser.add_argument("--flow", type=Path, help="flow folder of the flow run (algorithm1)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--decay-steps", type=int)
    parser.add_argument(
        "--to", type=Path, default=EMBEDDED["compact"], help="embed: where (the package)"
    )
    parser.add_argument(
        "--factors",
        type=float,
        nargs=2,
        default=(1.0, 1.0),
        metavar=("C", "D"),
        help="embed: what the LoRAs are multiplied by",
    )
    given = parser.parse_args()
    if given.phase == "embed":
        pipeline = given.run / "pipeline" if (given.run / "pipeline").is_dir() else given.run
        if not (pipeline / "model_index.json").is_file():
            raise InputError(f"{given.run} holds no pipeline; give the folder of a finished run")
        embed(pipeline, given.to, tuple(given.factors))
        return
    if given.packs is None:
        parser.error(f"{given.phase} needs --packs")
    loop = LOOPS[given.phase]
    changed = {
        name: getattr(given, name)
        for name in ("steps", "decay_steps")
        if getattr(given, name) is not None
    }
    loop = replace(loop, **changed)
    for folder in (given.base, given.flow):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder} is not a directory; give one that an earlier run wrote")
    if given.phase == "flow":
        train_flow(given.packs, given.run, loop)
    elif given.phase == "base":
        train_base(given.packs, given.run, loop)
    elif given.base is None or given.flow is None:
        parser.error("algorithm1 needs --base and --flow")
    else:
        train_algorithm1(given.packs, given.run, loop, given.base, given.flow)


if __name__ == "__main__":
    sys.exit(exit_status(main, "compact"))
