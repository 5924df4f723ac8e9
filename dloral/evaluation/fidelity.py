"""How close frames are to the ground truth: PSNR, SSIM, and the LPIPS-like distance."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dloral.errors import OptionError, Setting
from dloral.evaluation.measures import CAP_DB, FrameSet, Measure, MetricSpec
from dloral.models.perceptual import LPIPSLike

Array = NDArray[Any]

SSIM_SIDE = 11
SSIM_SIGMA = 1.5
SSIM_K = (0.01, 0.03)

Y_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
Y_OFFSET = 16 / 255
LUMA_TEXT = "BT.601 studio-range luma, 16 to 235 of 255 (MATLAB's rgb2ycbcr), not rounded"


def luma(frame: Tensor) -> Tensor:
    """(3,H,W) in [0, 1] -> (1,H,W): BT.601 luma of studio range, 16 to 235 of 255.

    The convention of MATLAB's rgb2ycbcr, which super-resolution papers use.
    """
    weights = frame.new_tensor(Y_WEIGHTS).view(3, 1, 1)
    return (frame * weights).sum(dim=0, keepdim=True) + Y_OFFSET


def psnr(frame: Tensor, hq_frame: Tensor) -> float:
    """PSNR in dB of (C,H,W) in [0, 1], over all channels and pixels; equal frames: 100."""
    error = (frame.double() - hq_frame.double()).square().mean().item()
    return CAP_DB if error <= 10 ** (-CAP_DB / 10) else -10 * float(np.log10(error))


def ssim(frame: Tensor, hq_frame: Tensor) -> float:
    """Mean SSIM of (C,H,W) in [0, 1], over channels and every position where the window fits.

    Window, constants and covariance are those of Wang et al. (2004): Gaussian 11 x 11, sigma 1.5,
    K = (0.01, 0.03). Frames smaller than the window give nan.
    """
    if min(frame.shape[-2:]) < SSIM_SIDE:
        return float("nan")
    x, y = as_array(frame), as_array(hq_frame)
    mean_x, mean_y = _windowed(x), _windowed(y)
    squares, product = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    variances = _windowed(x * x + y * y) - squares
    covariance = _windowed(x * y) - product
    c1, c2 = SSIM_K[0] ** 2, SSIM_K[1] ** 2
    above = (2 * product + c1) * (2 * covariance + c2)
    below = (squares + c1) * (variances + c2)
    return float((above / below).mean(dtype=np.float64))


def _windowed(picture: Array) -> Array:
    """The window's mean at every position where it fits."""
    kernel = cv2.getGaussianKernel(SSIM_SIDE, SSIM_SIGMA, cv2.CV_32F)
    edge = SSIM_SIDE // 2
    return cv2.sepFilter2D(picture, -1, kernel, kernel)[edge:-edge, edge:-edge]


def as_array(frame: Tensor) -> Array:
    """(C,H,W) -> (H,W,C), as OpenCV expects."""
    return np.ascontiguousarray(frame.permute(1, 2, 0).float().cpu().numpy())


class Fidelity(Measure):
    """PSNR or SSIM on RGB or on luma, ``crop`` pixels of every border left out."""

    def __init__(self, spec: MetricSpec, crop: int = 0) -> None:
        self.specs = (spec,)
        kind, _, self.channel = spec.name.partition("_")
        self.function: Callable[[Tensor, Tensor], float] = {"psnr": psnr, "ssim": ssim}[kind]
        self.crop = crop

    def update(self, frame_set: FrameSet) -> dict[str, float]:
        assert frame_set.hq is not None
        height, width = frame_set.restored.shape[-2:]
        if 2 * self.crop >= min(height, width):
            raise OptionError(
                "{option} is {value}, which leaves nothing of frames of {size}",
                remedy="give less",
                option=Setting("crop"),
                value=self.crop,
                size=f"{width}x{height}",
            )
        inner = slice(self.crop, -self.crop or None)
        pair = [frame[:, inner, inner] for frame in (frame_set.restored, frame_set.hq)]
        if self.channel:
            pair = [luma(frame) for frame in pair]
        return {self.specs[0].name: self.function(*pair)}

    def conditions(self) -> dict[str, str]:
        return {"crop": f"{self.crop} pixels of each border, in PSNR and SSIM"}


def gradient_energy(frame: Tensor) -> float:
    """Mean absolute horizontal difference plus mean absolute vertical one of (C,H,W) in [0, 1]."""
    steps = [frame.diff(dim=axis).abs() for axis in (1, 2)]
    return sum(step.double().mean().item() for step in steps if step.numel())


class Sharpness(Measure):
    """:func:`gradient_energy` over the ground truth's; none where the truth is flat."""

    def __init__(self, spec: MetricSpec) -> None:
        self.specs = (spec,)

    def update(self, frame_set: FrameSet) -> dict[str, float]:
        assert frame_set.hq is not None
        truth = gradient_energy(frame_set.hq)
        return {self.specs[0].name: gradient_energy(frame_set.restored) / truth} if truth else {}


class LPIPSLikeDistance(Measure):
    """:class:`dloral.models.perceptual.LPIPSLike`, frame by frame, in float32."""

    def __init__(self, spec: MetricSpec, device: str = "cpu") -> None:
        self.specs = (spec,)
        self.device = device
        self.distance = LPIPSLike().to(device)

    @torch.no_grad()
    def update(self, frame_set: FrameSet) -> dict[str, float]:
        assert frame_set.hq is not None
        pair = [frame[None].to(self.device) for frame in (frame_set.restored, frame_set.hq)]
        return {self.specs[0].name: self.distance(*pair).item()}
