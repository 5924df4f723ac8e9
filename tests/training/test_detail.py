"""The last phase: D-LoRA in the decoder, from answers prepared once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dloral.data.clips import Clips, Draw
from dloral.errors import OptionError
from dloral.frames.crisp import crisp
from dloral.frames.resize import resize_bicubic
from dloral.models.adapters import add_adapters
from dloral.models.lora_conv import two_lora_convs
from dloral.models.srvgg import SRVGG, mean_of_turns
from dloral.pipeline import DLoRALPipeline
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.training.loop import LoopConfig
from dloral.training.objective import OWN, TURNED
from dloral.training.phases.algorithm1 import Algorithm1Config
from dloral.training.phases.detail import DetailConfig, DetailPhase
from dloral.training.phases.phase import train

SIZES = CompactSizes(
    *(16, 8, 1, 2, (8, 8), 2, (4, 4, 4, 4), 1, 4),
    decoder_sees_input=True,
    direct_head=True,
    small_picture=True,
    rectified=True,
    head_rank=8,
    block_rank=8,
)
CONFIG = DetailConfig(clips=4, crop=32, held=32, refill_every=4, warm_refills=3, feature=0)
ALGORITHM1 = Algorithm1Config(scale_choices=(0.0, 1.0))


class Waves:
    """Clips of two frames, smooth and random; notes the steps they are drawn at."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def draw(self, draw: Draw) -> Clips:
        self.steps.append(draw.step)
        points = torch.from_numpy(draw.rng.random((8, 3, 4, 4), np.float32))
        small = F.interpolate(points, (8, 8), mode="bicubic").clamp(0, 1)
        frames = resize_bicubic(small, 32, 32)
        frames, small = frames.unflatten(0, (4, 2)), small.unflatten(0, (4, 2))
        return Clips(frames, frames, None, small)


@pytest.fixture
def teacher() -> SRVGG:
    torch.manual_seed(0)
    return SRVGG(width=8, depth=5).requires_grad_(False)


@pytest.fixture
def pipe() -> DLoRALPipeline:
    pipe = build_pipeline(SIZES)
    add_adapters(pipe.unet, 2)
    pipe.vae.add_adapters(SIZES.head_rank, SIZES.block_rank)
    for name, parameter in pipe.vae.named_parameters():
        if ".lora_up.consistency." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return pipe


def phase_of(
    pipe: DLoRALPipeline, teacher: SRVGG | None, config: DetailConfig = CONFIG
) -> DetailPhase:
    return DetailPhase(pipe, Waves(), config, ALGORITHM1, 7, teacher)


def test_d_lora_comes_to_draw_the_answers(
    pipe: DLoRALPipeline, teacher: SRVGG, tmp_path: Path
) -> None:
    phase = phase_of(pipe, teacher)
    phase.held_out = Waves().draw(Draw(0, 0, np.random.default_rng(5)))
    first = phase.evaluate()
    loop = LoopConfig(steps=120, learning_rate=1e-2, decay_steps=60, warmup_steps=5, ema=0.9)
    train(phase, replace(loop, optimizer="soap"), tmp_path / "run", {"phase": "detail"})
    last = phase.evaluate()
    assert last["to_teacher"] < 0.6 * first["to_teacher"]
    assert 0.5 < last["sharpness"] < 2


def test_answers_are_to_the_steadied_picture(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    """As it is with both LoRAs; those of the frames as they came differ."""
    clips = Waves().draw(Draw(0, 0, np.random.default_rng(0)))
    found = {}
    for answer in (TURNED, OWN):
        phase = phase_of(pipe, teacher, replace(CONFIG, answer=answer))
        found[answer] = phase._prepared(clips, 1.0)
    latents = found[TURNED].latents
    with torch.no_grad():
        picture = (pipe.vae.picture(latents / pipe.vae.config.scaling_factor) + 1) / 2
        wanted = mean_of_turns(teacher, picture.clamp(0, 1)).clamp(0, 1)
    close = (found[TURNED].answers - wanted).abs().mean()
    assert close < 0.02  # the change, not the picture itself, is added to the small frames
    assert (found[OWN].answers - found[TURNED].answers).abs().max() > 0.01
    assert torch.equal(found[OWN].latents, latents)


def test_answers_may_be_made_steeper(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    clips = Waves().draw(Draw(0, 0, np.random.default_rng(0)))
    plain, steeper = (
        phase_of(pipe, teacher, replace(CONFIG, steepness=amount))._prepared(clips, 1.0).answers
        for amount in (0.0, 1.0)
    )
    wanted = crisp(plain.float(), smoothing=0)
    torch.testing.assert_close(steeper.float(), wanted, atol=2e-3, rtol=0)  # kept in float16
    assert (steeper - plain).abs().max() > 0.01


def test_a_step_has_one_scale_and_each_comes_up(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    phase, seen = phase_of(pipe, teacher), []
    for step in range(20):
        phase.losses(Draw(step, 0, np.random.default_rng(step)))
        seen.append(pipe.vae.finish.conv.scales.tolist())
    assert {tuple(scales) for scales in seen} == {(0.0, 1.0), (1.0, 1.0)}
    assert {part.consistency for part in phase.answered} == {0.0, 1.0}


def test_prepared_once_used_often_and_not_for_ever(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    phase = phase_of(pipe, teacher)
    for step in range(40):
        phase.losses(Draw(step, 0, np.random.default_rng(step)))
    source = phase.source
    assert isinstance(source, Waves)
    assert source.steps == [0, 0, 0, 0, 4, 8, 12, 16, 20, 24, 28, 32, 36]
    assert len(phase.answered) == 8  # of 13; ``held`` frames, four at a time
    later = phase_of(pipe, teacher)  # as a resumed run, which has prepared none yet
    same = [
        one.losses(Draw(39, 0, np.random.default_rng(39)))["teacher_gradient"].item()
        for one in (phase, later)
    ]
    assert same[0] == same[1]
    back = phase.losses(Draw(3, 0, np.random.default_rng(3)))["teacher_gradient"].item()
    fresh = phase_of(pipe, teacher).losses(Draw(3, 0, np.random.default_rng(3)))
    assert back == fresh["teacher_gradient"].item()


def test_d_lora_may_stop_half_way(pipe: DLoRALPipeline, teacher: SRVGG, tmp_path: Path) -> None:
    """Also when its run is resumed at the end."""
    loop = LoopConfig(steps=5, learning_rate=1e-2, warmup_steps=0, ema=0.0, checkpoint_every=5)
    for name, parameter in pipe.vae.named_parameters():
        if ".lora_up.detail." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    convs = two_lora_convs(pipe.vae)
    state = {name: tensor.clone() for name, tensor in pipe.vae.state_dict().items()}
    before, changes = [conv.change("detail").detach() for conv in convs], []
    for folder, share in (("a", 1.0), ("b", 0.5), ("b", 0.5)):
        pipe.vae.load_state_dict(state)
        phase = phase_of(pipe, teacher, replace(CONFIG, share=share))
        train(phase, loop, tmp_path / folder, {"phase": "detail"})
        changes.append([conv.change("detail").detach() for conv in convs])
    for start, whole, half, again in zip(before, *changes, strict=True):
        assert not torch.allclose(start, whole)
        # Of rank 8 in 64 x 8 and 8 x 72; the mean of two such need not be.
        middle = (start + whole) / 2
        lost = torch.linalg.svdvals(middle)[8:].square().sum()
        torch.testing.assert_close((half - middle).square().sum(), lost, atol=1e-6, rtol=1e-3)
        assert torch.equal(half, again)


def test_features_are_of_the_middle(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    phase = phase_of(pipe, teacher, replace(CONFIG, feature=0.5))
    for parameter in phase.trainable().values():
        parameter.requires_grad_(True)
    shapes = []

    def distance(frames: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        shapes.append(frames.shape)
        assert frames.requires_grad
        assert not answers.requires_grad
        return (frames - answers).abs().mean(dim=(1, 2, 3))

    phase.feature_distance = distance  # type: ignore[assignment]
    losses = phase.losses(Draw(0, 0, np.random.default_rng(0)))
    assert shapes == [(4, 3, 16, 16)]
    assert 0 < losses["teacher_feature"] < 0.5
    losses["teacher_feature"].backward()


def test_what_it_needs_is_said(pipe: DLoRALPipeline, teacher: SRVGG) -> None:
    with pytest.raises(OptionError, match="needs a teacher"):
        phase_of(pipe, None)
    plain = build_pipeline(SIZES)
    add_adapters(plain.unet, 2)
    with pytest.raises(OptionError, match="needs a decoder with D-LoRA"):
        phase_of(plain, teacher)
    with pytest.raises(OptionError, match="held is 3; give 4"):
        replace(CONFIG, held=3)
    with pytest.raises(OptionError, match="unknown loss 'wrong_charbonnier'"):
        phase_of(pipe, teacher, replace(CONFIG, answer="wrong_"))
