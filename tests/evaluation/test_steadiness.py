"""Warping error and flicker on clips whose figures are known."""

import math

import pytest
import torch
from torch import Tensor

from dloral.errors import WeightsError
from dloral.evaluation.catalogue import METRIC_SPECS
from dloral.evaluation.measures import Measured, measure_clip
from dloral.evaluation.steadiness import (
    DISFlow,
    Steadiness,
    agreement_mask,
    make_flow,
    sample,
    warping_error,
)

STEADY = (METRIC_SPECS["warping_error"], METRIC_SPECS["flicker"])


class KnownFlow:
    """The same motion everywhere, known rather than estimated, between frames of one tensor."""

    name = "known"

    def __init__(self, dx: float, dy: float) -> None:
        self.motion = torch.tensor([dx, dy])

    def __call__(self, current: Tensor, previous: Tensor) -> Tensor:
        is_forth = current.storage_offset() > previous.storage_offset()
        flow = self.motion if is_forth else -self.motion
        return flow.view(2, 1, 1).expand(2, *current.shape[-2:])


def steadiness(frames: Tensor, flow: object, hq_frames: Tensor | None = None) -> Measured:
    return measure_clip(frames, [Steadiness(STEADY, flow)], hq_frames)  # type: ignore[arg-type]


def moved_clip(picture: Tensor, dx: int, dy: int, count: int = 4) -> Tensor:
    """A window of 64 x 96 whose content comes from (dx, dy) away in the frame before."""
    frames = []
    for index in range(count):
        top, left = 40 + index * dy, 80 + index * dx
        frames.append(picture[:, top : top + 64, left : left + 96])
    return torch.stack(frames)


def test_a_clip_moved_by_a_known_integer_flow_has_no_error(pictures: list[Tensor]) -> None:
    """Twelve clips, among them motion of many pixels: exactly 0, not nearly."""
    motions = [(0, 0), (1, 0), (0, 1), (3, -2), (-5, 4), (7, 7), (-9, 0), (11, -11), (2, 9)]
    motions += [(-13, 5), (17, 3), (-1, -12)]
    for picture, (dx, dy) in zip(pictures, motions, strict=True):
        clip = moved_clip(picture, dx, dy)
        measured = steadiness(clip, KnownFlow(dx, dy))
        assert measured.totals == {"warping_error": 0.0, "flicker": 0.0}
        assert measured.frames["warping_error"][0] is None
        if dx or dy:
            assert steadiness(clip, KnownFlow(0, 0)).totals["warping_error"] > 0.01


@pytest.mark.parametrize("deviation", [0.005, 0.01, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("motion", [(0, 0), (5, -3)])
def test_additive_noise_gives_twice_its_variance(
    pictures: list[Tensor], deviation: float, motion: tuple[int, int]
) -> None:
    """Two independent draws are subtracted: E = 2 sigma^2, to 2%."""
    clean = 0.25 + 0.5 * moved_clip(pictures[4], *motion)
    noise = deviation * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    found = steadiness(clean + noise, KnownFlow(*motion), clean).totals["warping_error"]
    assert found == pytest.approx(2e3 * deviation**2, rel=0.02)


def test_half_a_pixel_is_sampled_between() -> None:
    ramp = torch.arange(10.0).expand(1, 6, 10)
    flow = torch.tensor([0.5, 0.0]).view(2, 1, 1).expand(2, 6, 10)
    sampled, inside = sample(ramp, flow)
    assert torch.equal(sampled[0, 0, :9], torch.arange(9.0) + 0.5)
    assert inside[:, :9].all()
    assert not inside[:, 9].any()


def test_mask_is_the_formula() -> None:
    """|f + b|^2 > 0.01 (|f|^2 + |b|^2) + 0.5 is masked: here the limit is at b = -9.2..."""
    flow = torch.tensor([10.0, 0.0]).view(2, 1, 1).expand(2, 4, 20)
    inside = torch.ones(4, 20, dtype=torch.bool)
    for back, kept in ((-10.0, True), (-8.6, True), (-8.3, False), (0.0, False)):
        away = torch.tensor([back, 0.0]).view(2, 1, 1).expand(2, 4, 20)
        assert ((10 + back) ** 2 <= 0.01 * (100 + back**2) + 0.5) == kept
        assert agreement_mask(flow, away, inside).all() == kept
        assert agreement_mask(flow, away, inside).any() == kept


def test_what_was_covered_is_masked(pictures: list[Tensor]) -> None:
    """A square moves over a still picture; with its true motion both ways, the strip that it
    uncovers is masked and nothing else inside the picture."""
    square = torch.zeros(2, 144, 256, dtype=torch.bool)
    square[0, 40:80, 60:100] = True
    square[1, 40:80, 66:106] = True
    before, now = (torch.where(here, pictures[8], pictures[0]) for here in square)
    now[:, 40:80, 66:106] = before[:, 40:80, 60:100]
    forth = torch.where(square[1], -6.0, 0.0) * torch.tensor([1.0, 0.0]).view(2, 1, 1)
    back = torch.where(square[0], 6.0, 0.0) * torch.tensor([1.0, 0.0]).view(2, 1, 1)
    sampled, inside = sample(torch.cat([back, before]), forth)
    mask = agreement_mask(forth, sampled[:2], inside)
    uncovered = square[0] & ~square[1]
    assert torch.equal(~mask, uncovered)
    assert warping_error(now, sampled[2:], mask) == 0
    assert warping_error(now, sampled[2:], torch.ones_like(mask)) > 0.1


def test_dis_finds_a_known_motion(pictures: list[Tensor]) -> None:
    clip = moved_clip(pictures[4], 3, -2)
    flow = DISFlow()(clip[1], clip[0])[:, 8:-8, 8:-8]
    assert (flow.flatten(1).median(dim=1).values - torch.tensor([3.0, -2.0])).abs().max() < 0.1


def test_flicker_is_the_jump_of_brightness(pictures: list[Tensor]) -> None:
    """Brightness that jumps by 4 grey levels and back flickers by 4; the truth's jumps do not
    count; noise of the same size is averaged away over a cell."""
    still = (0.2 + 0.6 * pictures[0]).expand(6, -1, -1, -1)
    jumps = torch.tensor([0.0, 4.0]).repeat(3).view(6, 1, 1, 1) / 255
    alone = steadiness(still + jumps, KnownFlow(0, 0)).totals
    assert alone["flicker"] == pytest.approx(4, rel=1e-4)
    lit = steadiness(still + jumps, KnownFlow(0, 0), still + jumps).totals
    assert lit["flicker"] == pytest.approx(0, abs=1e-4)
    noise = torch.randn(still.shape, generator=torch.Generator().manual_seed(0)) * 4 / 255
    noisy = steadiness(still + noise, KnownFlow(0, 0), still).totals
    assert noisy["flicker"] < 0.5
    assert noisy["warping_error"] > alone["warping_error"]


def test_conditions_name_flow_resolution_and_guide(pictures: list[Tensor]) -> None:
    clip = torch.stack(pictures[:2])
    alone = steadiness(clip, DISFlow()).conditions["flow"]
    with_truth = steadiness(clip, DISFlow(), clip).conditions["flow"]
    assert "DIS" in alone
    assert "256x144" in alone
    assert "restored clip itself" in alone
    assert "reference" in with_truth


def test_raft_without_weights_says_where_to_get_them(tmp_path: object) -> None:
    with pytest.raises(WeightsError, match=r"torchvision|download"):
        make_flow("raft", f"{tmp_path}/none.pth")


def test_a_frame_where_nothing_is_seen_has_no_value() -> None:
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    measured = steadiness(frames, KnownFlow(100, 0))
    assert measured.frames["warping_error"] == [None, None]
    assert math.isnan(measured.totals.get("warping_error", math.nan))


def test_motion_of_the_result_alone() -> None:
    """DOVE's way: a still truth beside a moving result; each way follows its own guide."""
    clip = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0))
    moved = [clip[:, :32, i : i + 32] for i in range(3)]
    still = [clip[:, :32, :32]] * 3

    class Remembering:
        name = "remembering"

        def __init__(self) -> None:
            self.seen: list[Tensor] = []

        def __call__(self, current: Tensor, previous: Tensor) -> Tensor:
            self.seen += [current, previous]
            return torch.zeros(2, 32, 32)

    for on_restored, guide in ((True, moved), (False, still)):
        flow = Remembering()
        measured = measure_clip(moved, [Steadiness(STEADY, flow, on_restored)], still)
        assert all(any(torch.equal(frame, one) for one in guide) for frame in flow.seen)
        assert ("restored clip itself" in measured.conditions["flow"]) == on_restored
