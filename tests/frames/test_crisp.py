"""Crisper edges without halos, smoother flat ground."""

import pytest
import torch

from dloral.frames import crisp as module
from dloral.frames.crisp import crisp
from dloral.frames.sliding import BAND


def test_a_crisp_edge_is_steeper_without_a_halo() -> None:
    """Of two steps of different heights, each within its own span."""
    levels = [0.3] * 17 + [0.4, 0.5, 0.6] + [0.7] * 14 + [0.8] + [0.9] * 17
    frames = torch.tensor(levels).expand(1, 3, 36, -1).contiguous()
    found = crisp(frames)
    assert found[..., :18].min() >= 0.3 - 1e-6
    assert found[..., :26].max() <= 0.7 + 1e-6
    assert found[..., 26:].min() >= 0.7 - 1e-6
    assert found.max() <= 0.9 + 1e-6
    torch.testing.assert_close(found[..., :8], frames[..., :8])
    assert found.diff(dim=-1).max() > 1.3 * frames.diff(dim=-1).max()
    assert crisp(frames, 2.0).diff(dim=-1).max() > found.diff(dim=-1).max()


def test_a_faint_mesh_on_flat_ground_is_smoothed() -> None:
    mesh = torch.zeros(1, 3, 32, 32)
    mesh[..., ::4, ::4] = 4 / 255
    found = crisp(0.5 + mesh)
    assert found.std() < 0.3 * mesh.std()
    assert found.mean() == pytest.approx(0.5 + mesh.mean().item(), abs=1e-4)
    assert torch.equal(crisp(torch.full((1, 3, 16, 16), 1.5)), torch.ones(1, 3, 16, 16))


def test_less_smoothing_leaves_more_of_flat_ground() -> None:
    """With none the mesh stays; where there is structure smoothing changes nothing."""
    mesh = torch.zeros(1, 3, 32, 32)
    mesh[..., ::4, ::4] = 4 / 255
    smooth, half, steep = (crisp(0.5 + mesh, smoothing=share) for share in (1.0, 0.5, 0.0))
    assert smooth.std() < 0.3 * mesh.std() < 0.9 * mesh.std() < steep.std()
    torch.testing.assert_close(half, (smooth + steep) / 2)
    frames = picture(1, 3, 40, 50)
    frames = (frames - frames.mean()) * 20 + 0.5
    torch.testing.assert_close(crisp(frames, smoothing=0.0), crisp(frames), atol=1e-6, rtol=0)


def picture(*shape: int) -> torch.Tensor:
    """Soft noise: edges, and ground that is nearly flat."""
    torch.manual_seed(0)
    noise = torch.rand(*shape)
    return torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)


def test_a_share_of_the_change() -> None:
    frames = picture(2, 3, 40, 50)
    whole = crisp(frames, 1.2) - frames
    part = crisp(frames, 1.2, share=0.3) - frames
    torch.testing.assert_close(part, 0.3 * whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(crisp(frames, share=0.0), frames)


def test_less_sharpening_smooths_flat_ground_as_much() -> None:
    mesh = torch.zeros(1, 3, 32, 32)
    mesh[..., ::4, ::4] = 4 / 255
    assert torch.equal(crisp(0.5 + mesh, 0.5), crisp(0.5 + mesh))
    edge = torch.tensor([0.3] * 17 + [0.4, 0.5, 0.6] + [0.7] * 17).expand(1, 3, 36, -1).contiguous()
    none, half, whole = (crisp(edge, amount).diff(dim=-1).max() for amount in (0.0, 0.5, 1.0))
    assert none < half < whole


def test_no_value_leaves_the_span_around_it() -> None:
    frames = picture(1, 3, 40, 50)
    most = torch.nn.functional.max_pool2d(frames, 7, stride=1, padding=3)
    least = -torch.nn.functional.max_pool2d(-frames, 7, stride=1, padding=3)
    found = crisp(frames, 5.0)
    assert (found <= most + 1e-6).all()
    assert (found >= least - 1e-6).all()


def test_bands_are_of_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = picture(1, 3, 150, 9)
    assert torch.equal(crisp(frames), _in_bands(monkeypatch, frames, 9))
    large = picture(1, 3, 300, 700)
    assert large[0, 0].numel() > BAND
    assert torch.equal(crisp(large), _in_bands(monkeypatch, large, 10**9))


def _in_bands(monkeypatch: pytest.MonkeyPatch, frames: torch.Tensor, pixels: int) -> torch.Tensor:
    with monkeypatch.context() as patched:
        patched.setattr(module, "BAND", pixels)
        return crisp(frames)


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (20, 3)])
def test_frames_smaller_than_what_it_looks_at(size: tuple[int, int]) -> None:
    frames = torch.rand(1, 3, *size)
    found = crisp(frames)
    assert found.shape == frames.shape
    assert found.min() >= frames.min() - 1e-6
    assert found.max() <= frames.max() + 1e-6
