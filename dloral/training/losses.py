"""The losses. Frames are (B,3,H,W) in [0, 1]; every loss is one number a sample, (B,)."""

from torch import Tensor


def charbonnier(frames: Tensor, hq_frames: Tensor, epsilon: float = 1e-3) -> Tensor:
    """A smooth l1 (Charbonnier et al., 1994): ``sqrt(difference^2 + epsilon^2)``, (B,)."""
    return ((frames - hq_frames).square() + epsilon**2).sqrt().mean(dim=(1, 2, 3))
