"""Frames blended with their predecessors along the motion, where the two agree."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dloral.frames import steady as module
from dloral.frames.sliding import BAND
from dloral.frames.steady import DISAGREEMENT, steady

STRIDE = 8


def picture(height: int = 64, width: int = 80, batch: int = 1) -> Tensor:
    """Soft noise (B,3,H,W) in [0, 1]."""
    torch.manual_seed(0)
    coarse = torch.rand(batch, 3, 5, 6)
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0.05, 0.95)


def flow(frames: Tensor, dx: float = 0.0, dy: float = 0.0, stride: int = STRIDE) -> Tensor:
    """The same motion everywhere, from pixels to cells."""
    height, width = (-(-side // stride) for side in frames.shape[-2:])
    motion = torch.tensor([dx, dy]).view(1, 2, 1, 1) / stride
    return motion.expand(len(frames), 2, height, width).contiguous()


def test_half_of_the_noise_power_is_left() -> None:
    frame = picture(96, 96)
    now, before = (frame + 0.02 * torch.randn_like(frame) for _ in range(2))
    found = steady(now, before, flow(frame), 0.5, STRIDE)
    left = (found - frame).square().mean() / (now - frame).square().mean()
    assert left == pytest.approx(0.5, abs=0.03)
    third = steady(now, before, flow(frame), 1 / 3, STRIDE)
    left = (third - frame).square().mean() / (now - frame).square().mean()
    assert left == pytest.approx((4 + 1) / 9, abs=0.03)


@pytest.mark.parametrize(("dx", "dy"), [(5, 0), (0, -3), (-6, 2), (2.5, 0.5)])
def test_the_predecessor_is_moved_along(dx: float, dy: float) -> None:
    """Where the flow says, to a fraction of a pixel: what is not noise stays."""
    rows = torch.arange(64.0).view(-1, 1)
    columns = torch.arange(80.0)

    def scene(x: float, y: float) -> Tensor:
        grey = 0.5 + 0.05 * torch.sin((columns - x) / 4) * torch.cos((rows - y) / 5)
        return grey.expand(1, 3, 64, 80).contiguous()

    now, before = scene(0, 0), scene(dx, dy)
    found = steady(now, before, flow(now, dx, dy), 0.5, STRIDE)
    inner = (..., slice(8, -8), slice(8, -8))
    assert (found - now)[inner].abs().max() < 0.002
    astray = steady(now, before, flow(now), 0.5, STRIDE)
    assert (astray - now)[inner].abs().max() > 0.01


def test_where_frames_disagree_nothing_is_blended() -> None:
    """Half of the share at DISAGREEMENT, next to nothing at four times that."""
    now = torch.full((1, 3, 64, 64), 0.4)
    for times, left in ((0.0, 0.5), (1.0, 0.25), (4.0, 0.5 / 257)):
        before = now + times * DISAGREEMENT
        found = steady(now, before, flow(now), 0.5, STRIDE) - now
        expected = torch.full_like(now, left * times * DISAGREEMENT)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    ("width", "contrast", "ghost"),
    [(16, 0.5, 7), (8, 0.1, 7), (3, 0.3, 7), (2, 0.5, 2), (2, 0.2, 13)],
)
def test_what_moved_away_unseen_leaves_hardly_a_ghost(
    width: int, contrast: float, ghost: float
) -> None:
    """Of lines and things of any width, in grey levels; it is gone a frame later."""
    now = torch.full((1, 3, 64, 64), 0.4)
    before = now.clone()
    before[..., 8:56, 30 : 30 + width] += contrast
    found = steady(now, before, flow(now), 0.5, STRIDE)
    assert 255 * (found - now).abs().max() < ghost


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize(("height", "width"), [(64, 80), (61, 45), (9, 9), (1, 3), (300, 1)])
def test_bands_change_nothing(
    height: int, width: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sides of any length; motion across bands and beyond the frame."""
    now = picture(height, width, batch=2)
    before = now + 0.02 * torch.randn_like(now)
    motion = 3 * torch.randn(flow(now, stride=stride).shape)
    monkeypatch.setattr(module, "BAND", BAND * 1000)
    whole = steady(now, before, motion, 0.5, stride)
    monkeypatch.setattr(module, "BAND", 1)
    torch.testing.assert_close(steady(now, before, motion, 0.5, stride), whole, atol=1e-6, rtol=0)
    assert whole.shape == now.shape
    for each in range(2):
        part = slice(each, each + 1)
        alone = steady(now[part], before[part], motion[part], 0.5, stride)
        torch.testing.assert_close(alone, whole[part], atol=1e-6, rtol=0)


def test_half_precision_is_as_exact_as_its_frames() -> None:
    """In bfloat16 alone, a position beyond 256 would be off by whole pixels."""
    now = picture(24, 1024)
    before = (now + 0.01 * torch.randn_like(now)).bfloat16()
    found = steady(now.bfloat16(), before, flow(now), 0.5, STRIDE)
    assert found.dtype == torch.bfloat16
    wanted = steady(now.bfloat16().float(), before.float(), flow(now), 0.5, STRIDE)
    torch.testing.assert_close(found.float(), wanted, atol=0.005, rtol=0)


def test_frames_are_not_touched() -> None:
    now = picture()
    before = now + 0.01
    copies = now.clone(), before.clone()
    found = steady(now, before, flow(now), 0.5, STRIDE)
    assert torch.equal(now, copies[0])
    assert torch.equal(before, copies[1])
    assert found.data_ptr() != now.data_ptr()
