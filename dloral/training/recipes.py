"""Named configurations, and everything that a configuration file needs:

from dloral.training.recipes import *

config = replace(SD21, data=DataConfig(ClipSpec(("reds:/data/REDS",))))
"""

import runpy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dloral.data.pool import PoolConfig
from dloral.data.spec import ClipSpec
from dloral.errors import OptionError
from dloral.training.adversarial import AdversarialConfig
from dloral.training.config import DataConfig, ModelConfig, TrainConfig
from dloral.training.csd import CSDConfig
from dloral.training.fresh import CompactSizes
from dloral.training.loop import LoopConfig
from dloral.training.phases.algorithm1 import Algorithm1Config
from dloral.training.phases.base import BaseConfig
from dloral.training.phases.decoder import DecoderConfig
from dloral.training.phases.detail import DetailConfig
from dloral.training.phases.drawing import DrawingConfig
from dloral.training.phases.flow import FlowConfig
from dloral.training.plan import ChainConfig
from dloral.training.schedule import StageSchedule, named_schedule

__all__ = [
    "COMPACT",
    "COMPACT_CPU",
    "COMPACT_GPU",
    "SD21",
    "SD21_RANDOM",
    "STUDY",
    "TINY",
    "AdversarialConfig",
    "Algorithm1Config",
    "CSDConfig",
    "ClipSpec",
    "DataConfig",
    "LoopConfig",
    "ModelConfig",
    "StageSchedule",
    "TrainConfig",
    "named_schedule",
    "replace",
]

LORA_RANK = 8
"""Twice the paper's 4: the compact UNet's layers are narrow and few (our decision)."""

COMPACT_SCHEDULE = StageSchedule(
    consistency_steps=200,
    enhancement_steps=200,
    transition_steps=50,
    consistency_weights={"psnr_loss": 1.0, "temporal": 0.15},
    enhancement_weights={"charbonnier": 0.5, "feature": 0.5, "grid": 20.0},
)

ALGORITHM1_LOOP = LoopConfig(
    steps=1200,
    learning_rate=6e-4,
    decay_steps=200,
    evaluate_every=100,
    ema=0.99,
    mixed_precision="auto",
)

CLEANED = {"picture_charbonnier": 1.0, "picture_gradient": 0.5, "picture_temporal": 0.5}
"""What the UNet learns before any frame is drawn: the truth, downscaled to the input's size."""
DRAWN = {
    "own_charbonnier": 0.5,
    "own_gradient": 1.0,
    "charbonnier": 0.03,
    "temporal": 0.1,
    "hints": 0.1,
    **CLEANED,
}
"""A teacher's answer is a function of the stabilised input, so its l1 does not blur. With more
weight on the truth and on stability the base blurs what it drew; those are left to C-LoRA (our
decision)."""
CRISP = {
    "crisp_charbonnier": 0.5,
    "crisp_gradient": 1.0,
    "crisp_feature": 0.2,
    "temporal": 0.1,
    "grid": 20.0,
    "picture_charbonnier": 1.0,
    "picture_gradient": 0.5,
}
"""D-LoRA's losses if the latents contain a small picture: a teacher's answer made crisp. With the
truth's features or amount of detail as targets, D-LoRA drew dots on flat areas."""
DETAILED = {
    "teacher_charbonnier": 0.2,
    "teacher_gradient": 0.3,
    "detail": 4.0,
    "feature": 0.2,
    "temporal": 0.3,
    "grid": 20.0,
}
"""The same if they contain none: as much detail as the truth has, drawn like the teacher's."""

FIRST = ("look", "join", "enter")
"""A decoder's layers before its first block."""

DRAWING_LOOP = LoopConfig(
    steps=3000,
    learning_rate=1e-2,
    rate_factors={f"vae.{name}.": 5.0 for name in FIRST},
    betas=(0.95, 0.99),
    gradient_clip=1.0,
    decay_steps=1800,
    checkpoint_every=500,
    evaluate_every=250,
    ema=0.99,
    mixed_precision="auto",
    optimizer="soap",
)
"""SOAP at a rate that blocks tolerate when trained separately. Only a convolution of the upscaled
input precedes them, which needs five times that rate to learn as fast (our decision)."""

POOL = PoolConfig(
    held=1440,
    at_a_time=12,
    refill_every=60,
    warm_refills=30,
    light_share=0.2,
    smaller_share=0.3,
    odd_share=0.25,
)

COMPACT_CPU = ChainConfig(
    sizes=CompactSizes(
        latent_channels=16,
        encoder_blocks=0,
        unet_channels=(64, 96),
        decoder_blocks=16,
        decoder_sees_input=True,
        direct_head=True,
        small_picture=True,
        rectified=True,
        head_rank=48,
        block_rank=32,
        reach=16.0,
        retrieval_reduction=2,
    ),
    rank=32,
    flow=FlowConfig(clips=1, frames=2, moved_pairs=24, warm_up_share=0.55),
    flow_loop=LoopConfig(
        steps=3500,
        learning_rate=1e-3,
        decay_steps=800,
        evaluate_every=500,
        mixed_precision="auto",
    ),
    blocks=DrawingConfig(apart=True, afresh=True),
    blocks_loop=DRAWING_LOOP,
    drawing=DrawingConfig(late_hints=0.1),
    drawing_loop=replace(DRAWING_LOOP, steps=7200, learning_rate=5e-4, decay_steps=7000, ema=0.995),
    cleaning=BaseConfig(
        clips=8,
        frames=2,
        context=1,
        crop=160,
        reconstructed=0,
        aligned_share=0.75,
        weights=CLEANED,
    ),
    cleaning_loop=LoopConfig(
        steps=4000,
        learning_rate=1e-3,
        decay_steps=2000,
        checkpoint_every=500,
        evaluate_every=500,
        ema=0.99,
        mixed_precision="auto",
    ),
    base=BaseConfig(
        clips=3,
        frames=2,
        context=1,
        crop=160,
        reconstructed=0,  # a decoder that draws would have to unlearn it
        weights=DRAWN,
    ),
    base_loop=LoopConfig(
        steps=3000,
        learning_rate=4e-4,
        # What draws already moves little; what latents say of it is new.
        rate_factors={"vae.decoder.0.": 1.0}
        | dict.fromkeys(("vae.decoder.", "vae.finish.", *(f"vae.{name}." for name in FIRST)), 0.1),
        decay_steps=2000,
        checkpoint_every=500,
        evaluate_every=500,
        mixed_precision="auto",
    ),
    decoder=DecoderConfig(crop=160),
    decoder_loop=LoopConfig(
        steps=200, learning_rate=1e-4, decay_steps=100, ema=0.99, mixed_precision="auto"
    ),
    algorithm1=Algorithm1Config(
        clips=3,
        crop=160,
        # D-LoRA draws on the calm picture, mostly: the default has both at 1.
        scale_choices=(0.0, 1.0, 1.0, 1.0),
        schedule=StageSchedule(
            consistency_steps=500,
            enhancement_steps=2750,
            transition_steps=10,
            consistency_weights={
                "psnr_loss": 1.0,
                "temporal": 1.5,
                "gradient": 0.3,
                "grid": 20.0,
            },
            enhancement_weights=CRISP,
        ),
    ),
    algorithm1_loop=replace(
        ALGORITHM1_LOOP,
        steps=3250,
        learning_rate=1e-3,
        betas=(0.95, 0.99),
        decay_steps=1100,
        optimizer="soap",
    ),
    detail=DetailConfig(refill_every=12),
    detail_loop=replace(
        DRAWING_LOOP, steps=3600, learning_rate=2e-3, rate_factors={}, decay_steps=2800, ema=0.995
    ),
    pool=POOL,
    film_shots=160,
)
"""The compact model from scratch, on two cores: flow net, drawing, base, decoder, Algorithm 1.
Decoder, base and D-LoRA learn to draw from a teacher (``teacher``: its path); C-LoRA pulls towards
the truth."""

COMPACT_GPU = replace(
    COMPACT_CPU,
    flow=FlowConfig(clips=32, warm_up_share=0.5),
    blocks=DrawingConfig(clips=64, apart=True, afresh=True),
    drawing=DrawingConfig(clips=64),
    base=replace(COMPACT_CPU.base, clips=32, crop=160),
    algorithm1=replace(COMPACT_CPU.algorithm1, clips=24, crop=160),
    detail=DetailConfig(clips=48, refill_every=12),
    pool=replace(POOL, held=3000, at_a_time=48, refill_every=5, warm_refills=12),
    film_shots=1600,
)
"""The same on one GPU, where clips are made too."""

CHAINS = {"compact-cpu": COMPACT_CPU, "compact-gpu": COMPACT_GPU}

COMPACT = TrainConfig(
    model=ModelConfig("compact", consistency_rank=LORA_RANK, detail_rank=LORA_RANK),
    algorithm=Algorithm1Config(clips=4, crop=128, schedule=COMPACT_SCHEDULE),
    loop=ALGORITHM1_LOOP,
)
"""New LoRAs and CFR on the embedded model's base; takes minutes on two CPU cores."""

STUDY = replace(
    COMPACT,
    algorithm=replace(
        COMPACT.algorithm,
        clips=2,
        scale_choices=(1.0,),  # as the paper has both, and as its studies restore
        schedule=StageSchedule(
            consistency_steps=500,
            enhancement_steps=500,
            transition_steps=100,
            consistency_weights={"psnr_loss": 1.0, "temporal": 0.5},
            enhancement_weights={**DETAILED, "temporal": 0.25},
        ),
    ),
)
"""The paper's studies on two cores (``dloral study train``): enhancement pulls towards a teacher
and more detail, consistency towards the truth and stability, the latter with twice the weight (the
paper's ratio), so that the two conflict. Needs ``model.teacher``."""

SD21 = TrainConfig(
    model=ModelConfig("sd21:stable-diffusion-2-1-base", gradient_checkpointing=True),
    algorithm=Algorithm1Config(
        clips=1,
        crop=512,
        first_frame_share=0.0,
        scale_choices=(1.0,),
        schedule=named_schedule("public"),
    ),
    data=DataConfig(
        consistency=ClipSpec(("reds:REDS", "pexels:Pexels"), video_reduction=1),
        enhancement=ClipSpec(("lsdir:LSDIR",), photo_reductions=(1.0,)),
        workers=8,
    ),
    loop=LoopConfig(
        steps=20_000,
        learning_rate=5e-5,
        betas=(0.9, 0.999),
        weight_decay=1e-2,
        warmup_steps=0,
        gradient_clip=0.5,  # of half the public script's loss
        ema=0.0,
        micro_batches=16,
        mixed_precision="fp16",
    ),
)
"""The paper's model, with the public script's values: 16 micro-batches of one clip per step."""

SD21_RANDOM = replace(
    SD21,
    model=replace(SD21.model, start="random-sd21"),
    algorithm=replace(
        SD21.algorithm,
        schedule=replace(
            named_schedule("public"), consistency_steps=1, enhancement_steps=1, transition_steps=0
        ),
    ),
    loop=replace(SD21.loop, steps=2, micro_batches=1, mixed_precision="auto", log_every=1),
    save_pipeline=False,
)
"""The same sizes with random weights, for one step of each stage, to test a machine's memory."""

TINY = TrainConfig(
    model=ModelConfig("random-tiny", consistency_rank=2, detail_rank=2),
    algorithm=Algorithm1Config(
        clips=2,
        crop=64,
        flow_reduction=2,
        schedule=StageSchedule(
            10, 10, 4, {"l2": 1.0, "flow": 20.0}, {"l2": 1.0, "flow": 10.0, "grid": 1.0}
        ),
    ),
    data=DataConfig(workers=0),
    loop=LoopConfig(
        steps=30, warmup_steps=5, checkpoint_every=10, evaluate_every=15, log_every=5, ema=0.9
    ),
)
"""Random weights, trained in seconds, to test a folder of clips and a machine."""

CONFIGURATIONS = {
    "compact": COMPACT,
    "study": STUDY,
    "sd21": SD21,
    "sd21-random": SD21_RANDOM,
    "tiny": TINY,
}


def load_config(name: str, also: Iterable[str] = ()) -> TrainConfig:
    """A configuration by name, from a Python file or a run folder; raises :class:`OptionError`,
    whose list of names begins with ``also``, the caller's own."""
    if name in CONFIGURATIONS:
        return CONFIGURATIONS[name]
    path = Path(name)
    if path.is_dir() and (path / "config.py").is_file():
        path = path / "config.py"
    if path.suffix != ".py" or not path.is_file():
        raise OptionError(
            f"unknown configuration {name!r}; choose from {', '.join([*also, *CONFIGURATIONS])}, "
            "or give a Python file or a run folder"
        )
    try:
        found = runpy.run_path(str(path)).get("config")
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
    except Exception as error:  # a person's file may raise anything
        raise OptionError(f"{path} failed to run: {type(error).__name__}: {error}") from error
    if not isinstance(found, TrainConfig):
        raise OptionError(f"{path} defines no `config = TrainConfig(...)`; see docs/training.md")
    return found
