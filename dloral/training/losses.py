"""The losses. Frames are (B,3,H,W) in [0, 1]; every loss is one number per sample, (B,)."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dloral.models.flow import SPyNet, warp
from dloral.models.perceptual import VGGTrunk, unit_length


def l2(frames: Tensor, hq_frames: Tensor) -> Tensor:
    """Mean squared difference (B,)."""
    return (frames - hq_frames).square().mean(dim=(1, 2, 3))


def charbonnier(frames: Tensor, hq_frames: Tensor, epsilon: float = 1e-3) -> Tensor:
    """A smooth l1 (Charbonnier et al., 1994): ``sqrt(difference^2 + epsilon^2)``, (B,)."""
    return ((frames - hq_frames).square() + epsilon**2).sqrt().mean(dim=(1, 2, 3))


def psnr_loss(frames: Tensor, hq_frames: Tensor, floor: float = 1e-7) -> Tensor:
    """The PSNR divided by -100, (B,): a decibel counts the same in every image.

    Charbonnier's gradient comes mostly from the images with the largest errors; this one's from
    all equally (the PSNR loss of NAFNet, Chen et al., 2022; scaled to Charbonnier's size). Reducing
    squared errors far below ``floor`` gains nothing, so flat images do not outweigh the rest.
    """
    error = (frames - hq_frames).square().mean(dim=(1, 2, 3))
    return 0.1 * (error + floor).log10()


def grid(frames: Tensor, hq_frames: Tensor, period: int = 8) -> Tensor:
    """How much the error repeats every ``period`` pixels, which must divide the size, (B,).

    The mean error at each of the 8 x 8 positions in a latent cell is 0 for a clean image, and the
    pattern itself for one with a grid over it. A feature distance alone rewards such a grid
    (our decision; it covers periods of 4 and 2).
    """
    error = (frames - hq_frames).unflatten(-1, (-1, period)).unflatten(-3, (-1, period))
    pattern = error.mean(dim=(-4, -2))  # (B,3,period,period)
    return (pattern - pattern.mean(dim=(-2, -1), keepdim=True)).abs().mean(dim=(1, 2, 3))


def detail(frames: Tensor, hq_frames: Tensor) -> Tensor:
    """How far the amount of fine structure is from the truth's, in either direction, (B,).

    l1 blurs what the input leaves open: among the possible positions of an edge or a leaf, it
    settles on the middle. The amount of structure in a cell can be inferred, and this loss demands
    that amount, wherever in the cell it is (our decision; measured by :func:`_fine_strength`). It
    uses the grey image: applied to each colour, it puts coloured fringes beside lines.
    """
    return (_fine_strength(frames) - _fine_strength(hq_frames)).abs().mean(dim=(1, 2, 3))


def excess_detail(frames: Tensor, hq_frames: Tensor) -> Tensor:
    """How much fine structure the output has where the truth has less, (B,).

    A feature distance misses dots on smooth areas, and :func:`grid` misses those whose strength
    follows the image; this catches both (our decision).
    """
    excess = _fine_strength(frames) - _fine_strength(hq_frames)
    return excess.clamp(min=0).mean(dim=(1, 2, 3))


def _fine_strength(frames: Tensor, cell: int = 8) -> Tensor:
    """The root mean square, over cells of ``cell`` pixels, of what a 5 x 5 mean removes from the
    grey picture."""
    grey = frames.mean(dim=1, keepdim=True)
    fine = (grey - _mean(grey, 5)).square()
    return (F.avg_pool2d(fine, cell) + 1e-6).sqrt()


def gradient(frames: Tensor, hq_frames: Tensor) -> Tensor:
    """l1 of the differences between neighbours, rows plus columns, (B,): edges as sharp as the
    truth's, whatever their level (our decision)."""
    error = frames - hq_frames
    return sum(error.diff(dim=dim).abs().mean(dim=(1, 2, 3)) for dim in (-1, -2))  # type: ignore[return-value]


def _padded(frames: Tensor, side: int) -> Tensor:
    return F.pad(frames, (side // 2,) * 4, mode="replicate")


def _mean(frames: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(_padded(frames, side), side, stride=1)


def tempered(losses: Tensor, usual: float) -> Tensor:
    """``losses`` (B,), 0 or more: unchanged far below ``usual``, logarithmic above it, so that a
    sample on which a network's output explodes does not drown out the others (our decision)."""
    return usual * (losses / usual).log1p()


def temporal_difference(
    frames: Tensor,
    previous_frames: Tensor,
    hq_frames: Tensor,
    previous_hq_frames: Tensor,
    flow_current_to_previous: Tensor,
) -> Tensor:
    """How much the output's motion differs from the truth's, (B,).

    Each pair's change along the true motion, ``x_t - warp(x_{t-1}, flow)``, is compared between
    output and truth: flicker costs, real change (occlusion, light) does not. ``flow`` (B,2,H,W) is
    in pixels. Differentiable in the output frames (our decision; the public code's is not).
    """
    change = frames - warp(previous_frames, flow_current_to_previous, padding="border")
    true_change = hq_frames - warp(previous_hq_frames, flow_current_to_previous, padding="border")
    return (change - true_change).abs().mean(dim=(1, 2, 3))


def flow_consistency(
    flow: SPyNet,
    frames: Tensor,
    previous_frames: Tensor,
    hq_frames: Tensor,
    previous_hq_frames: Tensor,
    reduction: int = 1,
) -> Tensor:
    """How much the optical flow of an output pair differs from that of the true pair, (B,).

    L1 of the two flows, dx by the width and dy by the height (notes, "Training"). ``flow`` is a
    frozen network, so that the loss has a gradient in the output frames; the public code's flow has
    none. ``reduction``: the factor by which frames are shrunk first.
    """

    def estimate(current: Tensor, previous: Tensor) -> Tensor:
        if reduction > 1:
            current, previous = (F.avg_pool2d(part, reduction) for part in (current, previous))
        return flow(2 * current - 1, 2 * previous - 1)

    # Flow differences are small: computed in float32 at every precision.
    with torch.autocast(frames.device.type, enabled=False):
        ours = estimate(frames.float(), previous_frames.float())
        with torch.no_grad():
            theirs = estimate(hq_frames.float(), previous_hq_frames.float())
        height, width = ours.shape[-2:]
        size = ours.new_tensor([width, height]).view(1, 2, 1, 1)
        return ((ours - theirs) / size).abs().mean(dim=(1, 2, 3))


FRAME_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": l2,
    "charbonnier": charbonnier,
    "psnr_loss": psnr_loss,
    "gradient": gradient,
    "grid": grid,
    "detail": detail,
    "excess_detail": excess_detail,
}
"""Losses that need only the frames and the truth, by name."""


class FeatureDistance(nn.Module):
    """Distance of unit-length VGG features, mean over the first ``blocks`` blocks, (B,).

    Not called LPIPS because it is not: the trunk is tuned for edges and the heads are uniform.
    """

    def __init__(self, trunk: VGGTrunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, frames: Tensor, hq_frames: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = [unit_length(features) for features in self.trunk(hq_frames)]
        parts = [
            (unit_length(ours) - theirs).square().sum(dim=1).mean(dim=(1, 2))
            for ours, theirs in zip(self.trunk(frames), wanted, strict=True)
        ]
        return torch.stack(parts).mean(dim=0)
