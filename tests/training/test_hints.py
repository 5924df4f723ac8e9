"""Hints: what a teacher's layers see, for the blocks of a compact decoder."""

from dataclasses import replace

import pytest
import torch

from dloral.errors import OptionError
from dloral.models.srvgg import SRVGG
from dloral.models.vae import PlainBlock, RectifiedBlock
from dloral.pipeline import DLoRALPipeline
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.training.hints import Hints, _pink_frames
from dloral.training.objective import Objective, Restored

SIZES = CompactSizes(4, 8, 1, 3, (8, 8), 2, (4, 4, 4, 4), 1, 4)


@pytest.fixture
def pipe() -> DLoRALPipeline:
    return build_pipeline(SIZES)


@pytest.fixture
def teacher() -> SRVGG:
    torch.manual_seed(0)
    return SRVGG(width=8, depth=5)


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
            away = block - told / objective.hints.spreads[index]
            expected += away.square().mean(dim=(1, 2, 3)) / 3
    torch.testing.assert_close(objective.loss("hints", clips), expected)


def test_each_rectified_block_is_held_to_every_other_layer() -> None:
    """The first before all blocks; with the teacher's own convolutions there, nothing is away."""
    torch.manual_seed(0)
    teacher = SRVGG(width=8, depth=4)
    sizes = replace(SIZES, decoder_blocks=2, decoder_sees_input=True, direct_head=True)
    vae = build_pipeline(replace(sizes, rectified=True)).vae
    hints, small = Hints(vae, teacher), torch.rand(2, 3, 8, 8)
    scales = hints.spreads
    assert len(scales) == 3
    blocks = [layer for layer in vae.decoder if isinstance(layer, RectifiedBlock)]
    parts = [part for block in blocks for part in block.children()]
    with torch.no_grad():
        for part, layer in zip(parts, teacher.body[2:-1], strict=True):
            part.load_state_dict(layer.state_dict())
        for block, before, after in zip(blocks, scales[:-1], scales[1:], strict=True):
            block.conv1.weight.mul_(before)
            for parameter in block.conv2.parameters():
                parameter.div_(after)
        with hints.watching():
            teacher(small)
            with hints.apart():
                vae.decode(torch.randn(2, 4, 4, 4), lq_frames=torch.rand(2, 3, 32, 32))
        told = [layer / scale for layer, scale in zip(hints._told, scales, strict=True)]
    assert not torch.allclose(hints._seen[0], told[0])
    for seen, layer in zip(hints._seen[1:], told[1:], strict=True):
        torch.testing.assert_close(seen, layer)


def test_blocks_fed_by_the_teacher_learn_apart(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    """A block's gradient comes from its own layer: a change of the first reaches no other."""
    hints, small = Hints(pipe.vae, teacher), torch.rand(2, 3, 8, 8)
    blocks = [layer for layer in pipe.vae.decoder if isinstance(layer, PlainBlock)]
    latents = torch.randn(2, 4, 4, 4)
    outputs = []
    for change in (0.0, 1.0):
        with torch.no_grad():
            blocks[0].conv2.bias.add_(change)
        with hints.watching():
            teacher(small)
            with hints.apart():
                frames = pipe.decode(latents, torch.rand(2, 3, 32, 32))
        outputs.append([block.detach() for block in hints._seen] + [frames.detach()])
        told = [layer / spread for layer, spread in zip(hints._told, hints.spreads, strict=True)]
        torch.testing.assert_close(hints._seen[1], blocks[1](told[0]))
        hints.forget()
    (first, *rest), (changed, *others) = outputs
    assert not torch.equal(first, changed)
    assert all(torch.equal(*pair) for pair in zip(rest[:-1], others[:-1], strict=True))
    assert not any(module._forward_pre_hooks for module in pipe.vae.modules())


def test_spreads_are_of_the_order_of_one(teacher: SRVGG) -> None:
    """In parts of its spread, a layer of photograph-like input varies by 1, always alike."""
    pipe = build_pipeline(SIZES)
    hints = Hints(pipe.vae, teacher)
    assert hints.spreads == Hints(pipe.vae, teacher).spreads
    assert len(hints.spreads) == 3
    with hints.watching():
        teacher(_pink_frames())
    for layer, spread in zip(hints._told, hints.spreads, strict=True):
        assert (layer / spread).var(dim=(0, 2, 3)).mean().item() == pytest.approx(1, rel=1e-4)


def test_every_block_learns(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    objective = Objective(pipe, {"hints"}, teacher=teacher)
    objective.weighed(watched(objective), {"hints": 1.0})["hints"].backward()
    assert not objective.parameters()
    assert pipe.vae.decoder[2].conv2.weight.grad is not None
    assert not pipe.vae.decoder[2]._forward_hooks


def test_frames_of_another_size_give_no_hints(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    objective = Objective(pipe, {"hints"}, teacher=teacher)
    assert torch.equal(objective.loss("hints", watched(objective, 16)), torch.zeros(2))


def test_they_need_a_compact_decoder_and_a_teacher(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    for vae, network in ((pipe.vae, None), (torch.nn.Identity(), teacher)):
        with pytest.raises(OptionError, match="hints"):
            Hints(vae, network)
    with pytest.raises(OptionError, match="6 channels, but the decoder's 3 blocks have 8"):
        Hints(pipe.vae, SRVGG(width=6, depth=5))
