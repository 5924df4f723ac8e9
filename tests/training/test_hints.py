"""Hints: what a teacher's layers see, for the blocks of a compact decoder."""

import pytest
import torch

from dloral.errors import OptionError
from dloral.models.srvgg import SRVGG
from dloral.pipeline import DLoRALPipeline
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.training.hints import Hints
from dloral.training.objective import Objective, Restored

SIZES = CompactSizes(4, 8, 1, 3, (8, 8), 2, (4, 4, 4, 4), 1, 4)


@pytest.fixture
def pipe() -> DLoRALPipeline:
    return build_pipeline(SIZES)


@pytest.fixture
def teacher() -> SRVGG:
    torch.manual_seed(0)
    return SRVGG(width=6, depth=5)


def watched(objective: Objective, small_side: int = 8) -> Restored:
    lq_frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with objective.watching():
        frames = objective.pipe.decode(objective.pipe.encode(lq_frames), lq_frames)
    latents, small = torch.zeros(1, 2, 4, 4, 4), torch.rand(1, 2, 3, small_side, small_side)
    return Restored(frames[None], lq_frames[None], latents, None, small_frames=small)


def test_blocks_are_held_to_layers_as_deep(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    """Six activations for three blocks: the second, the fourth, the last."""
    objective = Objective(pipe, {"hints"}, teacher=teacher)
    assert objective.hints is not None
    clips = watched(objective)
    assert clips.small_frames is not None
    small = clips.small_frames[0]
    block = pipe.vae.decoder[:2](pipe.encode(clips.hq_frames[0]))
    expected = torch.zeros(2)
    with torch.no_grad():
        for index, layer in enumerate((3, 7, 11)):
            block = pipe.vae.decoder[2 + index](block)
            told = teacher.body[: layer + 1](small)
            away = objective.hints.projections[index](block) - told
            expected += away.square().mean(dim=(1, 2, 3)) / told.var() / 3
    torch.testing.assert_close(objective.loss("hints", clips), expected)


def test_every_block_and_projection_learns(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    objective = Objective(pipe, {"hints"}, teacher=teacher)
    objective.weighed(watched(objective), {"hints": 1.0})["hints"].backward()
    assert all(weight.grad is not None for weight in objective.parameters().values())
    assert pipe.vae.decoder[2].conv2.weight.grad is not None
    assert not pipe.vae.decoder[2]._forward_hooks


def test_frames_of_another_size_give_no_hints(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    objective = Objective(pipe, {"hints"}, teacher=teacher)
    assert torch.equal(objective.loss("hints", watched(objective, 16)), torch.zeros(2))


def test_they_need_a_compact_decoder_and_a_teacher(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    for vae, network in ((pipe.vae, None), (torch.nn.Identity(), teacher)):
        with pytest.raises(OptionError, match="hints"):
            Hints(vae, network)
