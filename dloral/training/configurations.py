"""Configurations by name, and all that a configuration file needs:

from dloral.training.configurations import *

config = replace(SD21, data=DataConfig(ClipSpec(("reds:/data/REDS",))))
"""

from dataclasses import replace

from dloral.data.spec import ClipSpec
from dloral.training.adversarial import AdversarialConfig
from dloral.training.algorithm1 import Algorithm1Config
from dloral.training.compact import COMPACT_SCHEDULE, LOOPS, LORA_RANK
from dloral.training.config import DataConfig, ModelConfig, TrainConfig
from dloral.training.csd import CSDConfig
from dloral.training.schedule import StageSchedule, named_schedule
from dloral.training.trainer import LoopConfig

__all__ = [
    "COMPACT",
    "SD21",
    "SD21_RANDOM",
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

COMPACT = TrainConfig(
    model=ModelConfig("compact", consistency_rank=LORA_RANK, detail_rank=LORA_RANK),
    algorithm=Algorithm1Config(clips=4, crop=128, schedule=COMPACT_SCHEDULE),
    loop=LOOPS["algorithm1"],
)
"""New LoRAs and CFR on the embedded model's base: minutes on two CPU cores."""

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
        ema=0.0,
        micro_batches=16,
        mixed_precision="fp16",
    ),
)
"""The paper's, with the public script's values: one clip a micro-batch, 16 a step."""

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
"""The same sizes with random weights, for one step of each stage: does it fit this machine?"""

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
"""Random weights, seconds: to see that a folder of clips and a machine work."""

CONFIGURATIONS = {
    "compact": COMPACT,
    "sd21": SD21,
    "sd21-random": SD21_RANDOM,
    "tiny": TINY,
}
