"""Colour fix: the input's colours, the restored frame's detail."""

import pytest
import torch
from torch import Tensor

from dloral.frames.colour import (
    COLOUR_FIXES,
    fix_colour,
    low_pass,
    match_low_frequencies,
    match_mean_and_std,
    plain_low_pass,
)


@pytest.fixture
def lq_frames() -> Tensor:
    coarse = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (64, 96), mode="bicubic")
    return smooth.clamp(0, 1) * 0.4 + 0.3


@pytest.fixture
def detail() -> Tensor:
    """A chequerboard: the highest frequency there is."""
    return 0.05 * (torch.arange(64)[:, None] + torch.arange(96)).remainder(2).mul(2).sub(1).float()


def test_adain_matches_mean_and_deviation(lq_frames: Tensor, detail: Tensor) -> None:
    fixed = match_mean_and_std(0.5 * lq_frames + detail + 0.2, lq_frames)
    for statistic in (torch.mean, torch.std):
        ours, wanted = (statistic(f, dim=(-2, -1)) for f in (fixed, lq_frames))
        torch.testing.assert_close(ours, wanted, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("method", ["adain", "wavelet"])
def test_constant_shift_is_removed(lq_frames: Tensor, method: str) -> None:
    shift = torch.tensor([0.1, -0.05, 0.2]).view(3, 1, 1)
    fixed = fix_colour(lq_frames + shift, lq_frames, method)
    torch.testing.assert_close(fixed, lq_frames, atol=1e-4, rtol=0)


def test_frames_are_fixed_one_by_one(lq_frames: Tensor) -> None:
    restored = lq_frames + torch.tensor([0.1, -0.1]).view(2, 1, 1, 1)
    for method in COLOUR_FIXES:
        together = fix_colour(restored, lq_frames, method)
        alone = fix_colour(restored[1:], lq_frames[1:], method)
        torch.testing.assert_close(together[1:], alone, atol=1e-6, rtol=0)


def test_wavelet_keeps_high_frequencies(lq_frames: Tensor, detail: Tensor) -> None:
    fixed = match_low_frequencies(lq_frames + detail, lq_frames)
    inside = (fixed - lq_frames)[..., 4:-4, 4:-4]
    torch.testing.assert_close(inside, detail[4:-4, 4:-4].expand_as(inside), atol=1e-3, rtol=0)


def test_wavelet_takes_low_frequencies_from_the_input(lq_frames: Tensor) -> None:
    """A slow wave (one period across the frame) added by the network is taken out again."""
    wave = 0.1 * torch.sin(torch.linspace(0, 2 * torch.pi, 96)).expand(64, 96)
    fixed = match_low_frequencies(lq_frames + wave, lq_frames)
    assert (fixed - lq_frames).std() < 0.7 * wave.std()


def test_none_changes_nothing_but_the_range(lq_frames: Tensor) -> None:
    assert torch.equal(fix_colour(lq_frames, 1 - lq_frames, "none"), lq_frames)
    assert fix_colour(lq_frames + 2, lq_frames, "none").max() == 1


@pytest.mark.parametrize("method", COLOUR_FIXES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_tiny_frames(method: str, size: tuple[int, int]) -> None:
    frames = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    fixed = fix_colour(frames * 0.5, frames, method)
    assert fixed.shape == frames.shape
    assert fixed.isfinite().all()


def test_flat_frame_stays_flat() -> None:
    flat = torch.full((1, 3, 8, 8), 0.5)
    torch.testing.assert_close(fix_colour(flat, flat, "adain"), flat)


def test_unknown_method() -> None:
    with pytest.raises(ValueError, match="sepia"):
        fix_colour(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), "sepia")


@pytest.mark.parametrize("size", [(64, 128), (97, 130), (98, 67), (99, 201), (50, 80)])
def test_reduced_low_pass_equals_the_plain_one(size: tuple[int, int]) -> None:
    """For what a network adds: a slow drift of colours of 0.05 and noise of 0.02."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 4, 4, generator=draw) * 0.1 - 0.05
    drift = torch.nn.functional.interpolate(coarse, size, mode="bicubic")
    frames = drift + 0.02 * torch.randn(2, 3, *size, generator=draw)
    before = frames.clone()
    difference = (low_pass(frames) - plain_low_pass(frames)).abs()
    assert difference.max() < 2e-3
    assert difference.mean() < 2e-4
    assert torch.equal(frames, before)
