"""The adversarial loss: both sides of the game, and what passes for real."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dloral.errors import OptionError
from dloral.models.srvgg import SRVGG
from dloral.training.adversarial import AdversarialConfig, AdversarialLoss
from dloral.training.fresh import build_pipeline
from dloral.training.objective import Objective, Restored
from dloral.training.start import TINY_SIZES


@pytest.mark.parametrize("kind", ["hinge", "softplus"])
def test_the_discriminator_learns_to_tell_and_the_generator_to_please_it(kind: str) -> None:
    game = AdversarialLoss(AdversarialConfig(kind, width=8, levels=2))
    draw = torch.Generator().manual_seed(0)
    real = (torch.rand(4, 3, 32, 32, generator=draw) > 0.5).float()
    fake = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
    adam = torch.optim.Adam(game.discriminator.parameters(), 2e-3)
    first = game.critic(fake, real).mean().item()
    for _ in range(30):
        adam.zero_grad()
        game.critic(fake, real).mean().backward()
        adam.step()
    assert game.critic(fake, real).mean().item() < 0.5 * first

    output = fake.clone().requires_grad_()
    adam.zero_grad()
    before = game.generator(output)
    before.sum().backward()
    assert before.shape == (4,)
    assert all(parameter.grad is None for parameter in game.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in game.discriminator.parameters())
    pleasing = output.detach() - 0.01 * output.grad / output.grad.abs().mean()
    assert (game.generator(pleasing) < before).all()


def test_the_critic_gives_the_generator_no_gradient() -> None:
    game = AdversarialLoss(AdversarialConfig(width=8, levels=1))
    output = torch.rand(1, 3, 16, 16, requires_grad=True)
    game.critic(output, torch.rand(1, 3, 16, 16)).sum().backward()
    assert output.grad is None


def test_a_balanced_gradient_is_as_long_as_an_l1_s_and_points_the_same_way() -> None:
    torch.manual_seed(0)
    plain = AdversarialLoss(AdversarialConfig(width=8, levels=1))
    balanced = AdversarialLoss(AdversarialConfig(width=8, levels=1, balanced=True))
    frames, truth = torch.rand(3, 3, 16, 24), torch.rand(3, 3, 16, 24)

    def gradient(game: AdversarialLoss) -> tuple[float, Tensor]:
        seen = frames.clone().requires_grad_()
        value = game.generator(seen).mean()
        value.backward()
        assert seen.grad is not None
        return value.item(), seen.grad

    l1 = frames.clone().requires_grad_()
    (l1 - truth).abs().mean().backward()
    assert l1.grad is not None
    value, along = gradient(balanced)
    steep_value, steep = gradient(plain)
    assert value == pytest.approx(steep_value, abs=1e-6)
    assert along.norm().item() == pytest.approx(l1.grad.norm().item(), rel=1e-4)
    torch.testing.assert_close(along / along.norm(), steep / steep.norm())
    assert all(parameter.grad is None for parameter in balanced.discriminator.parameters())


@pytest.mark.parametrize("real", ["truth", "teacher", "both"])
def test_what_passes_for_real(real: str) -> None:
    torch.manual_seed(0)
    pipe, teacher = build_pipeline(TINY_SIZES), SRVGG(8, 2)
    config = AdversarialConfig(width=8, levels=1, real=real)
    objective = Objective(pipe, {"adversarial"}, teacher=teacher, adversarial=config)
    small, truth = torch.rand(1, 4, 3, 8, 8), torch.rand(1, 4, 3, 32, 32)
    clips = Restored(truth, truth, torch.zeros(1, 4, 4, 4, 4), None, small_frames=small)
    shown: list[Tensor] = []
    assert objective.adversarial is not None
    handle = objective.adversarial.discriminator.register_forward_pre_hook(
        lambda _, frames: shown.append(frames[0])
    )
    objective.weighed(clips, {"adversarial": 1.0}, np.random.default_rng(1))
    handle.remove()
    with torch.no_grad():
        answers = teacher(small[0]).clamp(0, 1)
    reals = (shown[-1] + 1) / 2
    of_the_truth = [
        torch.allclose(frame, true, atol=1e-6) for frame, true in zip(reals, truth[0], strict=True)
    ]
    of_the_teacher = [
        torch.allclose(frame, answer, atol=1e-6)
        for frame, answer in zip(reals, answers, strict=True)
    ]
    wanted = {"truth": {True}, "teacher": {False}, "both": {True, False}}[real]
    assert set(of_the_truth) == wanted
    assert of_the_teacher == [not true for true in of_the_truth]


def test_without_a_teacher_only_the_truth_is_real() -> None:
    config = AdversarialConfig(real="both")
    with pytest.raises(OptionError, match="adversarial needs a teacher"):
        Objective(build_pipeline(TINY_SIZES), {"adversarial"}, adversarial=config)
    with pytest.raises(OptionError, match="real"):
        AdversarialConfig(real="nothing")


def test_the_discriminator_sees_what_is_added_to_the_input() -> None:
    torch.manual_seed(0)
    game = AdversarialLoss(AdversarialConfig(width=8, levels=1, residual=5.0))
    frames, lq_frames = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    shown: list[Tensor] = []
    game.discriminator.register_forward_pre_hook(lambda _, seen: shown.append(seen[0]))
    game.generator(frames, lq_frames)
    torch.testing.assert_close(shown[0][:, :3], 2 * frames - 1)
    torch.testing.assert_close(shown[0][:, 3:], 5 * (frames - lq_frames))
    with pytest.raises(OptionError, match="residual"):
        AdversarialConfig(residual=-1.0)
