"""A tiny pipeline to train, and a chain of all phases that takes seconds."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dloral.models.building import building
from dloral.models.srvgg import SRVGG
from dloral.pipeline import DLoRALPipeline
from dloral.training.config import with_changes
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.training.plan import PHASES, ChainConfig
from dloral.training.recipes import COMPACT_CPU


@pytest.fixture
def tiny_pipeline() -> DLoRALPipeline:
    return build_pipeline(CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4))


TINY_CHAIN = (
    "sizes.latent_channels=4 sizes.vae_width=8 sizes.encoder_blocks=1 sizes.decoder_blocks=1 "
    "sizes.unet_channels=(8,8) sizes.flow_levels=2 sizes.flow_channels=(4,4,4,4) "
    "sizes.retrieval_heads=1 sizes.retrieval_head_dim=4 rank=2 workers=0 shares=(1,1,1,1,1,1,1,1) "
    "blocks.clips=1 blocks.crop=32 drawing.clips=1 drawing.crop=32 "
    "cleaning.clips=1 cleaning.crop=32 "
    "flow.clips=1 flow.crop=64 flow.moved_pairs=2 "
    "base.reconstructed=1 base.clips=1 base.crop=32 decoder.clips=1 decoder.crop=32 "
    "decoder.smooth=2 algorithm1.clips=1 algorithm1.crop=32 held_out_clips=1 "
    "algorithm1.schedule.consistency_steps=2 algorithm1.schedule.enhancement_steps=1 "
    "algorithm1.schedule.transition_steps=0 "
    "algorithm1.schedule.enhancement_weights={'charbonnier':1.0} "
    "detail.clips=1 detail.crop=32 detail.held=3 detail.warm_refills=1 detail.refill_every=1 "
    "pool.at_a_time=4 pool.held=8 pool.warm_refills=0 pool.refill_every=1 pool.draws=4 "
    "base.weights={'charbonnier':1.0} base.late_weights={'charbonnier':1.0,'temporal':0.1} "
    + " ".join(f"{phase}_loop.checkpoint_every=1" for phase in PHASES)
).split()


def teacher_of(photos: Path) -> str:
    """The setting of a small teacher, whose file lies beside the photographs' folder."""
    path = photos.parent / "teacher.safetensors"
    if not path.is_file():
        torch.manual_seed(0)
        with building():
            save_file(SRVGG(width=8, depth=2).state_dict(), path)
    return f"teacher={path}"


def tiny_chain(photos: Path, *more: str) -> ChainConfig:
    places = f"clips.places=('photos:{photos}',)"
    return with_changes(COMPACT_CPU, [*TINY_CHAIN, teacher_of(photos), places, *more])
