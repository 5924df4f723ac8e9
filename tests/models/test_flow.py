"""Warping and the flow net."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dloral.models.flow import SPyNet, warp, warp_unfolded


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (2, 0), (0, -3), (-1, 4), (20, 0)])
def test_warp_by_whole_cells(dx: int, dy: int) -> None:
    """Output cell (x, y) is the previous frame's (x + dx, y + dy); 0 outside."""
    previous = random(2, 3, 9, 14)
    flow = torch.tensor([dx, dy], dtype=torch.float32).view(1, 2, 1, 1).expand(2, 2, 9, 14)
    expected = torch.zeros_like(previous)
    for y in range(9):
        for x in range(14):
            if 0 <= x + dx < 14 and 0 <= y + dy < 9:
                expected[..., y, x] = previous[..., y + dy, x + dx]
    torch.testing.assert_close(warp(previous, flow), expected, atol=1e-5, rtol=0)


def test_warp_between_cells_is_bilinear() -> None:
    previous = random(1, 1, 4, 6)
    flow = torch.zeros(1, 2, 4, 6)
    flow[:, 0] = 0.25
    expected = 0.75 * previous[..., :-1] + 0.25 * previous[..., 1:]
    torch.testing.assert_close(warp(previous, flow)[..., :-1], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("places", [1, 2, -3])
def test_unfolded_latents_move_by_parts_of_a_cell(places: int) -> None:
    """What a cell's channels hold moves with the picture, though the flow is in cells."""
    picture = random(1, 2, 16, 24)
    flow = torch.zeros(1, 2, 8, 12)
    flow[:, 0] = places / 2
    moved = F.pixel_shuffle(warp_unfolded(F.pixel_unshuffle(picture, 2), flow, 2), 2)
    wanted = picture.roll(-places, dims=-1)
    torch.testing.assert_close(moved[..., 4:-4], wanted[..., 4:-4])
    assert torch.equal(
        warp_unfolded(picture, flow.repeat(1, 1, 2, 2), 1), warp(picture, flow.repeat(1, 1, 2, 2))
    )


def test_warp_can_repeat_the_border() -> None:
    previous = random(1, 1, 4, 6)
    flow = torch.full((1, 2, 4, 6), 50.0)
    corner = previous[..., -1:, -1:].expand_as(previous)
    torch.testing.assert_close(warp(previous, flow, padding="border"), corner)


def test_warp_in_bfloat16_keeps_positions() -> None:
    """At column 300 bfloat16 knows even cells only; positions must be counted in float32."""
    previous = (torch.arange(400) % 2).float().expand(1, 1, 2, 400).bfloat16()
    flow = torch.zeros(1, 2, 2, 400, dtype=torch.bfloat16)
    warped = warp(previous, flow)
    assert warped.dtype == torch.bfloat16
    torch.testing.assert_close(warped, previous, atol=1e-3, rtol=0)


@pytest.fixture
def spynet() -> SPyNet:
    torch.manual_seed(0)
    return SPyNet(levels=4, channels=(8, 8)).eval()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (9, 31), (40, 5)])
def test_flow_of_any_size(spynet: SPyNet, size: tuple[int, int]) -> None:
    with torch.no_grad():
        flow = spynet(random(2, 3, *size), random(2, 3, *size, seed=1))
    assert flow.shape == (2, 2, *size)
    assert flow.isfinite().all()
    assert flow.any()


def test_frames_of_a_batch_do_not_touch(spynet: SPyNet) -> None:
    now, before = random(3, 3, 20, 24), random(3, 3, 20, 24, seed=1)
    with torch.no_grad():
        together = spynet(now, before)
        alone = torch.cat([spynet(now[i : i + 1], before[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_flow_is_in_cells_of_the_given_grid() -> None:
    """A net that says (16, 8) cells on the padded 16 x 16 grid says (15, 5) on one of 10 x 15."""
    spynet = SPyNet(levels=5, channels=(4,))
    with torch.no_grad():
        for parameter in spynet.parameters():
            parameter.zero_()
        last = spynet.pyramid[-1][-1]
        last.bias.copy_(torch.tensor([16.0, 8.0]))
        flow = spynet(random(1, 3, 10, 15), random(1, 3, 10, 15))
    torch.testing.assert_close(flow[0, :, 0, 0], torch.tensor([15.0, 5.0]))


def test_coarser_levels_count_double() -> None:
    """One cell at level k is two cells at level k + 1."""
    spynet = SPyNet(levels=3, channels=(4,))
    with torch.no_grad():
        for parameter in spynet.parameters():
            parameter.zero_()
        spynet.pyramid[0][-1].bias.copy_(torch.tensor([1.0, -1.0]))
        flow = spynet(random(1, 3, 8, 8), random(1, 3, 8, 8))
    torch.testing.assert_close(flow[0, :, 3, 3], torch.tensor([4.0, -4.0]))


def test_levels_agree_with_forward(spynet: SPyNet) -> None:
    now, before = random(1, 3, 16, 24), random(1, 3, 16, 24, seed=1)
    with torch.no_grad():
        flows = spynet.coarse_to_fine(now, before)
        torch.testing.assert_close(flows[-1], spynet(now, before))
    assert [tuple(flow.shape[-2:]) for flow in flows] == [(2, 3), (4, 6), (8, 12), (16, 24)]


def test_a_size_that_needs_no_padding_is_not_resized(spynet: SPyNet) -> None:
    """Resizing to the same size, as it was before, changes not a bit."""
    size = (16, 24)
    now, before = random(1, 3, *size), random(1, 3, *size, seed=1)

    def resized(pictures: torch.Tensor) -> torch.Tensor:
        return F.interpolate(pictures, size, mode="bilinear", align_corners=False)

    with torch.no_grad():
        plain = resized(spynet.coarse_to_fine(resized(now), resized(before))[-1])
        assert torch.equal(spynet(now, before), plain)


def test_saved_and_loaded(spynet: SPyNet, tmp_path: Path) -> None:
    spynet.save_pretrained(tmp_path)
    loaded = SPyNet.from_pretrained(tmp_path)
    now, before = random(1, 3, 9, 9), random(1, 3, 9, 9, seed=1)
    with torch.no_grad():
        assert torch.equal(spynet(now, before), loaded(now, before))
