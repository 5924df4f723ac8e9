"""SOAP: equal to its definition, quick where Adam is slow, and the same after a checkpoint."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dloral.training import soap
from dloral.training.loop import LoopConfig
from dloral.training.soap import REFRESH_EVERY, SOAP
from dloral.training.trainer import Trainer


def correlated(seed: int = 0) -> tuple[Tensor, Tensor]:
    """What a convolution sees (8,8,6,6), nearly all of it alike, and a wanted weight (4,8,3,3)."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(8, 1, 6, 6, generator=generator)
    seen = 10 * shared + torch.randn(8, 8, 6, 6, generator=generator)
    return seen, torch.randn(4, 8, 3, 3, generator=generator)


def learned(optimizer_class: type[torch.optim.Optimizer], rate: float, steps: int = 300) -> float:
    """The share of a wanted weight that is not learned yet, from eight samples a step."""
    wanted = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    weight = nn.Parameter(torch.zeros_like(wanted))
    optimizer = optimizer_class([weight], lr=rate, betas=(0.9, 0.95))  # type: ignore[call-arg]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        nn.functional.conv2d(correlated(step)[0], weight - wanted).square().mean().backward()
        optimizer.step()
    return ((weight - wanted).square().mean() / wanted.square().mean()).item()


def test_quick_where_what_a_convolution_sees_is_correlated() -> None:
    """Each at the best of three rates."""
    adam, rotated = (
        min(learned(optimizer_class, rate) for rate in (0.03, 0.1, 0.3))
        for optimizer_class in (torch.optim.Adam, SOAP)
    )
    print(f"left: Adam {adam:.4f}, SOAP {rotated:.4f}")
    assert rotated < 0.5 * adam


def test_equal_to_the_definition() -> None:
    """Algorithm 3 of the paper, written out in float64, with a refinement of the eigenvectors."""
    torch.manual_seed(0)
    gradients = [torch.randn(3, 5) for _ in range(REFRESH_EVERY + 3)]
    weight = nn.Parameter(torch.ones(3, 5))
    optimizer = SOAP([weight], lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01)
    expected = torch.ones(3, 5, dtype=torch.float64)
    left = right = moved = squared = torch.empty(0)
    for step, gradient in enumerate(gradients):
        weight.grad = gradient.clone()
        optimizer.step()
        g = gradient.double()
        if step == 0:
            rows, columns = g @ g.T, g.T @ g
            left, right = (torch.linalg.eigh(m)[1].flip(-1) for m in (rows, columns))
            # Of one gradient not all eigenvectors are determined; those are taken from it.
            right = optimizer.state[weight]["columns_basis"].double()
            moved, squared = torch.zeros_like(g), torch.zeros_like(g)
            assert torch.equal(weight, torch.ones(3, 5))
            continue
        moved = 0.9 * moved + 0.1 * left @ left.T @ g @ right @ right.T
        rotated = left.T @ g @ right
        squared = 0.99 * squared + 0.01 * rotated.square()
        mean = (left.T @ moved @ right) / (1 - 0.9**step)
        change = mean / ((squared / (1 - 0.99**step)).sqrt() + 1e-8)
        expected = expected * (1 - 0.1 * 0.01) - 0.1 * left @ change @ right.T
        rows = soap.MOMENT_DECAY * rows + (1 - soap.MOMENT_DECAY) * g @ g.T
        columns = soap.MOMENT_DECAY * columns + (1 - soap.MOMENT_DECAY) * g.T @ g
        if step % REFRESH_EVERY == 0:
            left, right = torch.linalg.qr(rows @ left)[0], torch.linalg.qr(columns @ right)[0]
    torch.testing.assert_close(weight.double(), expected, rtol=1e-3, atol=1e-4)


def test_vectors_get_adamws_step() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(7))
    settings = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.1}
    optimizers = SOAP([ours], **settings), torch.optim.AdamW([theirs], **settings)  # type: ignore[arg-type]
    for _ in range(5):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_what_has_no_gradient_stays() -> None:
    moved, still = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = SOAP([moved, still])
    for _ in range(2):
        moved.grad = torch.eye(2)
        optimizer.step()
    assert torch.equal(still, torch.ones(2, 2))
    assert not torch.equal(moved, torch.ones(2, 2))


def test_a_long_side_keeps_its_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soap, "LONGEST", 16)
    weight = nn.Parameter(torch.ones(4, 8, 3, 3))
    optimizer = SOAP([weight])
    for _ in range(REFRESH_EVERY + 2):
        weight.grad = torch.randn(4, 8, 3, 3)
        optimizer.step()
    assert "rows" in optimizer.state[weight]
    assert "columns" not in optimizer.state[weight]
    assert torch.isfinite(weight).all()


def test_goes_on_from_a_checkpoint_as_if_unbroken(tmp_path: Path) -> None:
    config = LoopConfig(
        steps=REFRESH_EVERY + 6, optimizer="soap", checkpoint_every=REFRESH_EVERY + 1
    )
    seen, wanted = correlated()
    target = nn.functional.conv2d(seen, wanted, padding=1)

    def train(run: Path, until: int) -> Tensor:
        weight = nn.Parameter(torch.zeros(4, 8, 3, 3))
        trainer = Trainer({"weight": weight}, config, run)
        assert isinstance(trainer.optimizer.optimizer, SOAP)
        for step in trainer.iterations():
            if step > until:
                break
            with trainer.update({"weight"}) as update:
                for _ in update:
                    found = nn.functional.conv2d(seen, weight, padding=1)
                    update.backward({"l2": (found - target).square().mean()})
        return weight.detach().clone()

    unbroken = train(tmp_path / "unbroken", config.steps)
    train(tmp_path / "broken", REFRESH_EVERY + 2)
    assert torch.equal(train(tmp_path / "broken", config.steps), unbroken)
