"""Losses by name: what a teacher answers, and to which sizes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dloral.errors import OptionError
from dloral.frames.crisp import crisp
from dloral.frames.resize import resize_bicubic
from dloral.models.srvgg import SRVGG, mean_of_turns
from dloral.pipeline import DLoRALPipeline
from dloral.training.fresh import build_pipeline
from dloral.training.objective import Objective, Restored
from dloral.training.start import TINY_SIZES

NAMES = {"teacher_charbonnier", "teacher_gradient", "charbonnier"}


class CountingTeacher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.calls = SRVGG(8, 2), 0

    def forward(self, small: Tensor) -> Tensor:
        self.calls += 1
        answers: Tensor = self.network(small)
        return answers


@pytest.fixture(scope="module")
def pipe() -> DLoRALPipeline:
    return build_pipeline(TINY_SIZES)


def restored(frames: Tensor, small: Tensor) -> Restored:
    frames = frames[None]
    return Restored(
        frames, torch.zeros_like(frames), torch.zeros(1, 2, 4, 4, 4), None, small_frames=small[None]
    )


def test_a_teacher_is_asked_once_a_step(pipe: DLoRALPipeline) -> None:
    teacher = CountingTeacher()
    objective = Objective(pipe, NAMES, teacher=teacher)
    for step in range(1, 3):
        clips = restored(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 8, 8))
        found = objective.weighed(clips, dict.fromkeys(NAMES, 1.0))
        assert found.keys() == NAMES
        assert teacher.calls == step


def test_a_teacher_is_asked_of_the_truth_too(pipe: DLoRALPipeline) -> None:
    """Whatever the input, the wanted frames are what the teacher makes of the truth made small."""
    teacher, truth = CountingTeacher(), torch.rand(1, 2, 3, 32, 32)
    with torch.no_grad():
        wanted = teacher(resize_bicubic(truth[0], 8, 8, "pil")).clamp(0, 1)
    names = {"clean_charbonnier", "clean_gradient", "teacher_gradient"}
    objective = Objective(pipe, names, teacher=teacher)
    clips = replace(restored(wanted, torch.rand(2, 3, 8, 8)), hq_frames=truth)
    teacher.calls = 0
    found = objective.weighed(clips, dict.fromkeys(names, 1.0))
    assert teacher.calls == 2
    assert found["clean_charbonnier"] < 1.1e-3  # Charbonnier's epsilon
    assert found["teacher_gradient"] > 0.01
    assert objective.loss("clean_charbonnier", replace(clips, frames=1 - clips.frames)).min() > 0.01


@pytest.mark.parametrize("asked", ["teacher", "own", "crisp", "turned"])
def test_where_nothing_was_lost_the_truth_is_the_answer(asked: str) -> None:
    """Of the second of two clips, for every kind of answer; and there are no hints of it."""
    name = f"{asked}_charbonnier"
    ends = dict.fromkeys(("decoder_sees_input", "direct_head", "small_picture", "rectified"), True)
    sizes = replace(TINY_SIZES, **ends)
    pipe, teacher = build_pipeline(sizes), SRVGG(sizes.vae_width, 3)
    objective = Objective(pipe, {name, "hints"}, teacher=teacher)
    frames, small = torch.rand(2, 1, 3, 32, 32), torch.rand(2, 1, 3, 8, 8)
    lq_frames = resize_bicubic(small[:, 0], 32, 32, "pil")
    latents = pipe.encode(lq_frames)
    clips = Restored(
        frames,
        frames.clone(),
        latents[:, None],
        None,
        small_frames=small,
        lq_frames=lq_frames[:, None],
        lossless=torch.tensor([False, True]),
    )
    with objective.watching():
        pipe.decode(latents, lq_frames)
    found, hints = objective.loss(name, clips), objective.loss("hints", clips)
    assert found[0] > 0.01
    assert found[1] < 1.1e-3  # Charbonnier's epsilon
    assert hints[0] > 0
    assert hints[1] == 0


def test_a_teacher_is_asked_of_what_the_latents_picture_shows() -> None:
    """Small frames, and what the latents change of them; below the scale of 4 as they are."""
    pipe = build_pipeline(replace(TINY_SIZES, decoder_sees_input=True, small_picture=True))
    teacher, small = CountingTeacher(), 0.25 + 0.5 * torch.rand(2, 3, 8, 8)
    lq_frames = resize_bicubic(small, 32, 32, "pil")
    latents = pipe.encode(lq_frames)
    latents[:, -12:] += 0.2  # a tenth brighter, in [0, 1]
    with torch.no_grad():
        wanted = teacher(small + 0.1).clamp(0, 1)
    objective = Objective(pipe, {"own_charbonnier"}, teacher=teacher)
    clips = replace(restored(wanted, small), latents=latents[None], lq_frames=lq_frames[None])
    assert objective.loss("own_charbonnier", clips).max() < 1.1e-3  # Charbonnier's epsilon
    assert objective.loss("own_charbonnier", replace(clips, frames=1 - clips.frames)).min() > 0.01
    larger = replace(clips, small_frames=torch.rand(1, 2, 3, 16, 16))
    with torch.no_grad():
        wanted = resize_bicubic(teacher(larger.small_frames[0]).clamp(0, 1), 32, 32, "pil")
    assert objective.loss("own_charbonnier", replace(larger, frames=wanted[None])).max() < 1.1e-3


def test_a_crisp_answer_is_the_own_one_made_crisp() -> None:
    """Asked once for both."""
    pipe = build_pipeline(replace(TINY_SIZES, decoder_sees_input=True, small_picture=True))
    teacher, small = CountingTeacher(), torch.rand(2, 3, 8, 8)
    lq_frames = resize_bicubic(small, 32, 32, "pil")
    with torch.no_grad():
        own = teacher(small).clamp(0, 1)
    names = {"own_charbonnier", "crisp_charbonnier"}
    objective = Objective(pipe, names, teacher=teacher)
    latents = pipe.encode(lq_frames)
    clips = replace(restored(crisp(own), small), latents=latents[None], lq_frames=lq_frames[None])
    teacher.calls = 0
    found = objective.weighed(clips, dict.fromkeys(names, 1.0))
    assert teacher.calls == 1
    assert found["crisp_charbonnier"] < 1.1e-3  # Charbonnier's epsilon
    assert found["own_charbonnier"] > 0.01


def test_a_turned_answer_is_the_mean_of_those_to_all_turns() -> None:
    """Asked eight times, of the small picture; a mirrored picture has the mirrored answer."""
    pipe = build_pipeline(replace(TINY_SIZES, decoder_sees_input=True, small_picture=True))
    teacher, small = CountingTeacher(), torch.rand(2, 3, 8, 8)
    lq_frames = resize_bicubic(small, 32, 32, "pil")
    with torch.no_grad():
        turned = mean_of_turns(teacher, small)
        for seen, wanted in (
            (small.flip(-1), turned.flip(-1)),
            (small.rot90(1, (-2, -1)), turned.rot90(1, (-2, -1))),
            (small.mT, turned.mT),
        ):
            torch.testing.assert_close(mean_of_turns(teacher, seen), wanted)
        tall = mean_of_turns(teacher, small[..., :6])
    assert tall.shape == (2, 3, 32, 24)
    assert (teacher(small) - turned).abs().max() > 0.01
    objective = Objective(pipe, {"turned_charbonnier"}, teacher=teacher)
    latents = pipe.encode(lq_frames)
    clips = replace(
        restored(turned.clamp(0, 1), small), latents=latents[None], lq_frames=lq_frames[None]
    )
    teacher.calls = 0
    assert objective.loss("turned_charbonnier", clips).max() < 1.1e-3  # Charbonnier's epsilon
    assert teacher.calls == 8
    other = replace(clips, frames=1 - clips.frames)
    assert objective.loss("turned_charbonnier", other).min() > 0.01


def test_losses_of_the_small_picture() -> None:
    """0 for the truth made as small, whatever the frames show; motion is told in its pixels."""
    pipe = build_pipeline(replace(TINY_SIZES, decoder_sees_input=True, small_picture=True))
    names = {"picture_charbonnier", "picture_psnr_loss", "picture_temporal"}
    objective = Objective(pipe, names)
    small = torch.rand(2, 3, 8, 8)
    small[1] = small[0].roll(1, dims=-1)
    hq_frames = resize_bicubic(small, 32, 32, "pil").clamp(0, 1)
    latents = pipe.encode(hq_frames)
    truth = 2 * resize_bicubic(hq_frames, 8, 8, "pil") - 1
    latents[:, -12:] = F.pixel_unshuffle(truth, 2)
    clips = replace(
        restored(torch.rand(2, 3, 32, 32), small),
        hq_frames=hq_frames[None],
        latents=latents[None],
        flow=torch.stack([torch.full((32, 32), -4.0), torch.zeros(32, 32)])[None, None],
    )
    assert objective.loss("picture_charbonnier", clips).max() < 1.1e-3  # Charbonnier's epsilon
    assert objective.loss("picture_temporal", clips).max() < 1e-5
    flickering = latents.clone()
    flickering[1, -12:] += 0.2
    clips = replace(clips, latents=flickering[None])
    assert objective.loss("picture_temporal", clips).item() == pytest.approx(0.1, abs=1e-4)
    bright = objective.loss("picture_charbonnier", clips)
    assert bright[0] < 1.1e-3
    assert bright[1].item() == pytest.approx(0.1, abs=1e-3)
    still = replace(clips, latents=latents[None], flow=torch.zeros(1, 1, 2, 32, 32))
    assert objective.loss("picture_temporal", still).item() < 1e-5  # the truth moves so too


def test_latents_without_a_picture_have_none_to_ask_of(pipe: DLoRALPipeline) -> None:
    names = ("own_gradient", "picture_gradient")
    objective = Objective(pipe, {*names}, teacher=CountingTeacher())
    for name in names:
        with pytest.raises(OptionError, match="small_picture=True"):
            objective.loss(name, restored(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 8, 8)))


@pytest.mark.parametrize("side", [8, 12, 16])
def test_below_its_scale_a_teacher_s_answer_is_made_smaller(
    pipe: DLoRALPipeline, side: int
) -> None:
    teacher, small = CountingTeacher(), torch.rand(2, 3, side, side)
    with torch.no_grad():
        answer = resize_bicubic(teacher(small).clamp(0, 1), 32, 32, "pil")
    objective = Objective(pipe, NAMES, teacher=teacher)
    loss = objective.loss("teacher_charbonnier", restored(answer, small))
    assert loss.max() < 1.1e-3  # Charbonnier's epsilon
    assert objective.loss("teacher_charbonnier", restored(1 - answer, small)).min() > 0.01


def test_above_its_scale_a_teacher_has_no_answer(pipe: DLoRALPipeline) -> None:
    objective = Objective(pipe, NAMES, teacher=CountingTeacher())
    clips = restored(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 6, 6))
    with pytest.raises(OptionError, match="24x24, but here they are 32x32"):
        objective.loss("teacher_charbonnier", clips)
