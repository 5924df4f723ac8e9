"""The first phase: a decoder learns to draw from a teacher."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dloral.data.clips import Clips, Draw
from dloral.errors import OptionError
from dloral.frames.resize import resize_bicubic
from dloral.models.srvgg import SRVGG, mean_of_turns
from dloral.pipeline import DLoRALPipeline
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.training.loop import LoopConfig
from dloral.training.losses import tempered
from dloral.training.phases.drawing import USUAL, DrawingConfig, DrawingPhase
from dloral.training.phases.phase import train

SIZES = CompactSizes(
    *(4, 8, 1, 3, (8, 8), 2, (4, 4, 4, 4), 1, 4), decoder_sees_input=True, direct_head=True
)


class Waves:
    """Clips of one frame: smooth and random."""

    def draw(self, draw: Draw) -> Clips:
        points = torch.from_numpy(draw.rng.random((4, 3, 4, 4), np.float32))
        small = F.interpolate(points, (8, 8), mode="bicubic").clamp(0, 1)
        frames = resize_bicubic(small, 32, 32)[:, None]
        return Clips(frames, frames, None, small[:, None])


@pytest.fixture
def teacher() -> SRVGG:
    torch.manual_seed(0)
    return SRVGG(width=8, depth=5).requires_grad_(False)


AFRESH = DrawingConfig(clips=4, crop=32, hints=0.7, late_hints=0.07, afresh=True)
APART = replace(AFRESH, apart=True)


def phase_of(
    pipe: DLoRALPipeline,
    teacher: SRVGG | None,
    steps: int = 400,
    config: DrawingConfig = AFRESH,
) -> DrawingPhase:
    return DrawingPhase(pipe, Waves(), config, steps, teacher)


def test_a_decoder_comes_to_draw_as_its_teacher(teacher: SRVGG, tmp_path: Path) -> None:
    pipe = build_pipeline(SIZES)
    before = {name: tensor.clone() for name, tensor in pipe.vae.state_dict().items()}
    unet = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    phase = phase_of(pipe, teacher)
    phase.held_out = Waves().draw(Draw(0, 0, np.random.default_rng(5)))
    first = phase.evaluate()
    loop = LoopConfig(steps=400, learning_rate=1e-2, decay_steps=250, warmup_steps=5, ema=0.9)
    train(phase, loop, tmp_path / "run", {"phase": "drawing"})
    last = phase.evaluate()
    assert last["to_teacher"] < 0.8 * first["to_teacher"]
    assert last["hints"] < 0.7 * first["hints"]
    moved = {n for n, t in pipe.vae.state_dict().items() if not torch.equal(t, before[n])}
    assert {name.split(".")[0] for name in moved} == {"decoder", "join", "finish"}
    assert all(torch.equal(tensor, unet[name]) for name, tensor in pipe.unet.state_dict().items())


def test_latents_have_no_say_yet(teacher: SRVGG) -> None:
    pipe = build_pipeline(SIZES)
    phase_of(pipe, teacher)
    frames = torch.rand(1, 3, 32, 32)
    drawn = [pipe.decode(torch.randn(1, 4, 4, 4), frames) for _ in range(2)]
    assert torch.equal(*drawn)


def test_an_earlier_drawing_goes_on_if_it_is_to(teacher: SRVGG) -> None:
    pipe = build_pipeline(SIZES)
    phase_of(pipe, teacher)
    torch.nn.init.ones_(pipe.vae.join.bias)
    had = {name: tensor.clone() for name, tensor in pipe.vae.state_dict().items()}
    phase_of(pipe, teacher, config=replace(AFRESH, afresh=False))
    assert all(torch.equal(tensor, had[n]) for n, tensor in pipe.vae.state_dict().items())
    phase_of(pipe, teacher)
    assert not torch.equal(pipe.vae.join.bias, had["join.bias"])


def test_rectified_blocks_learn_to_draw(teacher: SRVGG, tmp_path: Path) -> None:
    """By SOAP, and from the small picture too."""
    sizes = replace(SIZES, latent_channels=16, small_picture=True, decoder_blocks=2, rectified=True)
    pipe = build_pipeline(sizes)
    phase = phase_of(pipe, teacher)
    phase.held_out = Waves().draw(Draw(0, 0, np.random.default_rng(5)))
    before, first = pipe.vae.look.weight.clone(), phase.evaluate()
    loop = LoopConfig(steps=150, learning_rate=1e-2, decay_steps=100, warmup_steps=5, ema=0.9)
    loop = replace(loop, optimizer="soap")
    train(phase, loop, tmp_path / "run", {"phase": "drawing"})
    last = phase.evaluate()
    assert last["to_teacher"] < 0.8 * first["to_teacher"]
    assert last["hints"] < 0.7 * first["hints"]
    assert not torch.equal(before, pipe.vae.look.weight)


def test_the_answer_may_be_the_mean_of_all_turns(teacher: SRVGG) -> None:
    """Hints are of the layers at the frames as they are."""
    clips = Waves().draw(Draw(0, 0, np.random.default_rng(0)))
    found = []
    for config in (AFRESH, replace(AFRESH, turned=True)):
        phase = phase_of(build_pipeline(SIZES), teacher, config=config)
        found.append(phase._drawn(clips)[1:])
    (answers, hints), (turned, same_hints) = found
    assert torch.equal(hints, same_hints)
    assert clips.small_frames is not None
    with torch.no_grad():
        wanted = mean_of_turns(teacher, clips.small_frames[:, 0]).clamp(0, 1)
    torch.testing.assert_close(turned, wanted)
    assert (answers - turned).abs().max() > 0.01


def test_hints_fade(teacher: SRVGG) -> None:
    phase = phase_of(build_pipeline(SIZES), teacher, steps=100)
    weights = []
    for step in (0, 50, 100):
        losses = phase.losses(Draw(step, 0, np.random.default_rng(0)))
        hints = phase._drawn(Waves().draw(Draw(step, 0, np.random.default_rng(0))))[2]
        weights.append((losses["hints"] / tempered(hints, USUAL["hints"]).mean()).item())
    assert weights == pytest.approx([0.7, 0.385, 0.07], rel=1e-4)


def test_blocks_learn_apart(teacher: SRVGG) -> None:
    """What an earlier block computes does not reach a later one."""
    drawn, joined = {}, {}
    for config in (AFRESH, APART):
        pipe = build_pipeline(SIZES)
        phase = phase_of(pipe, teacher, config=config)
        draws = [Draw(0, 0, np.random.default_rng(0)) for _ in range(2)]
        first = phase.losses(draws[0])["teacher_charbonnier"].item()
        for parameter in pipe.vae.join.parameters():
            torch.nn.init.ones_(parameter)
        drawn[config.apart] = first
        joined[config.apart] = phase.losses(draws[1])["teacher_charbonnier"].item()
    assert drawn[True] == joined[True]
    assert drawn[False] != joined[False]


def test_below_its_scale_the_teachers_answer_is_made_smaller(teacher: SRVGG) -> None:
    """And there are no hints: its layers are of another size."""
    phase = phase_of(build_pipeline(SIZES), teacher)
    larger = torch.rand(4, 1, 3, 16, 16)
    frames = resize_bicubic(larger[:, 0], 32, 32)[:, None]
    found = phase._drawn(Clips(frames, frames, None, larger))
    with torch.no_grad():
        # In the phase's layout: elsewhere some processors round otherwise.
        given = larger[:, 0].contiguous(memory_format=torch.channels_last)
        wanted = resize_bicubic(teacher(given).clamp(0, 1), 32, 32, "pil")
    assert torch.equal(found[1], wanted)
    assert not found[2].any()


def test_where_nothing_was_lost_the_truth_is_drawn(teacher: SRVGG) -> None:
    """Not while blocks learn apart: the teacher's layers, which they are fed, lead elsewhere."""
    phase = phase_of(build_pipeline(SIZES), teacher)
    clips = Waves().draw(Draw(0, 0, np.random.default_rng(0)))
    lossless = torch.tensor([False, True, False, True])
    _, answers, hints = phase._drawn(clips)
    _, found, held = phase._drawn(replace(clips, lossless=lossless))
    assert torch.equal(found[lossless], clips.hq_frames[lossless, 0])
    assert torch.equal(found[~lossless], answers[~lossless])
    assert torch.equal(held, hints * ~lossless)
    assert hints.all()
    _, apart, _ = phase._drawn(replace(clips, lossless=lossless), apart=True)
    assert torch.equal(apart, answers)


def test_what_cannot_learn_to_draw(teacher: SRVGG) -> None:
    blind = build_pipeline(CompactSizes(4, 8, 1, 3, (8, 8), 2, (4, 4, 4, 4), 1, 4))
    with pytest.raises(OptionError, match="must see the input"):
        phase_of(blind, teacher)
    with pytest.raises(OptionError, match="teacher"):
        phase_of(build_pipeline(SIZES), None)
