"""The two-order degradation that makes low-quality clips (Real-ESRGAN, Wang et al., 2021).

Values are the training notes'; a clip's frames share its draw, except that noise is drawn afresh.
Frames here are float32 arrays (H,W,3) in [0, 1]; OpenCV does the work on one core.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[Any]  # float32; OpenCV's stubs promise no dtype

KERNEL_SIZES = tuple(range(7, 22, 2))
KERNEL_KINDS = (
    "iso",
    "aniso",
    "generalised_iso",
    "generalised_aniso",
    "plateau_iso",
    "plateau_aniso",
)
INTERPOLATIONS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)


@dataclass(frozen=True)
class OrderConfig:
    """One of the two orders. Probabilities of alternatives sum to 1; resize probabilities are
    (up, down, keep); noise sigma and JPEG quality are in their usual units."""

    blur_probability: float
    blur_sigma: tuple[float, float]
    resize_probabilities: tuple[float, float, float]
    resize_range: tuple[float, float]
    gaussian_sigma: tuple[float, float]
    poisson_scale: tuple[float, float]
    jpeg_quality: tuple[float, float]
    gaussian_probability: float = 0.5
    grey_probability: float = 0.4
    sinc_probability: float = 0.1
    kernel_probabilities: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    generalised_shape: tuple[float, float] = (0.5, 4.0)
    plateau_shape: tuple[float, float] = (1.0, 2.0)


@dataclass(frozen=True)
class DegradationConfig:
    """The notes' values; ``scale`` is how many times smaller the result is."""

    scale: int = 4
    final_sinc_probability: float = 0.8
    first: OrderConfig = field(
        default_factory=lambda: OrderConfig(
            1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.3, 1.5), (1, 15), (0.05, 2.0), (60, 95)
        )
    )
    second: OrderConfig = field(
        default_factory=lambda: OrderConfig(
            0.5, (0.2, 1.5), (0.3, 0.4, 0.3), (0.6, 1.2), (1, 12), (0.05, 1.0), (60, 100)
        )
    )


@dataclass(frozen=True)
class Noise:
    """``kind`` gaussian: ``amount`` is sigma in [0, 1] units; poisson: the scale of shot noise."""

    kind: str
    amount: float
    grey: bool


@dataclass(frozen=True)
class Order:
    """One drawn order: blur kernel or none, resize factor, noise, JPEG quality."""

    kernel: NDArray[np.float32] | None
    resize_factor: float
    interpolation: int
    noise: Noise
    jpeg_quality: int


@dataclass(frozen=True)
class DegradationDraw:
    """Everything that is the same for all frames of a clip."""

    scale: int
    first: Order
    second: Order
    final_sinc: NDArray[np.float32] | None
    final_interpolation: int
    jpeg_before_resize: bool


def sample_degradation(
    rng: np.random.Generator, config: DegradationConfig | None = None
) -> DegradationDraw:
    """Draw one clip's degradation."""
    config = config or DegradationConfig()
    return DegradationDraw(
        scale=config.scale,
        first=_sample_order(rng, config.first),
        second=_sample_order(rng, config.second),
        final_sinc=_sinc_kernel(rng) if rng.random() < config.final_sinc_probability else None,
        final_interpolation=INTERPOLATIONS[rng.integers(3)],
        jpeg_before_resize=bool(rng.random() < 0.5),
    )


def degrade_clip(
    hq_frames: Sequence[Frame], draw: DegradationDraw, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Frames (H,W,3) in [0, 1], H and W multiples of ``draw.scale`` -> uint8 (T,H/s,W/s,3).

    Raises ``ValueError`` for a size that the scale does not divide.
    """
    height, width = hq_frames[0].shape[:2]
    if height % draw.scale or width % draw.scale:
        raise ValueError(f"frames are {width} x {height}; make both multiples of {draw.scale}")
    return np.stack([_degrade(frame, draw, rng) for frame in hq_frames])


def _degrade(frame: Frame, draw: DegradationDraw, rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = frame.shape[0] // draw.scale, frame.shape[1] // draw.scale
    frame = _blur_resize_noise(frame, draw.first, frame.shape[:2], rng)
    frame = _jpeg(frame, draw.first.jpeg_quality)
    frame = _blur_resize_noise(frame, draw.second, (height, width), rng)
    if draw.jpeg_before_resize:
        frame = _jpeg(frame, draw.second.jpeg_quality)
    frame = np.clip(
        cv2.resize(frame, (width, height), interpolation=draw.final_interpolation), 0, 1
    )
    if draw.final_sinc is not None:
        frame = np.clip(_filter(frame, draw.final_sinc), 0, 1)
    if not draw.jpeg_before_resize:
        frame = _jpeg(frame, draw.second.jpeg_quality)
    return np.round(255 * frame).astype(np.uint8)


def _blur_resize_noise(
    frame: Frame, order: Order, base_size: tuple[int, ...], rng: np.random.Generator
) -> Frame:
    if order.kernel is not None:
        frame = _filter(frame, order.kernel)
    height, width = (max(8, int(side * order.resize_factor)) for side in base_size)
    frame = cv2.resize(frame, (width, height), interpolation=order.interpolation)
    return _add_noise(np.clip(frame, 0, 1), order.noise, rng)


def _sample_order(rng: np.random.Generator, config: OrderConfig) -> Order:
    kernel = _sample_kernel(rng, config) if rng.random() < config.blur_probability else None
    direction = rng.choice(3, p=config.resize_probabilities)
    least, most = config.resize_range
    factor = (rng.uniform(1, most), rng.uniform(least, 1), 1.0)[direction]
    gaussian = rng.random() < config.gaussian_probability
    amount = (
        rng.uniform(*config.gaussian_sigma) / 255
        if gaussian
        else rng.uniform(*config.poisson_scale)
    )
    return Order(
        kernel=kernel,
        resize_factor=float(factor),
        interpolation=INTERPOLATIONS[rng.integers(3)],
        noise=Noise(
            "gaussian" if gaussian else "poisson",
            float(amount),
            bool(rng.random() < config.grey_probability),
        ),
        jpeg_quality=int(rng.uniform(*config.jpeg_quality)),
    )


def _sample_kernel(rng: np.random.Generator, config: OrderConfig) -> NDArray[np.float32]:
    """A blur kernel of sum 1: sinc, or one of six kinds of bell."""
    if rng.random() < config.sinc_probability:
        return _sinc_kernel(rng)
    kind = KERNEL_KINDS[rng.choice(len(KERNEL_KINDS), p=config.kernel_probabilities)]
    x, y = _grid(int(rng.choice(KERNEL_SIZES)))
    sigma_x = sigma_y = rng.uniform(*config.blur_sigma)
    angle = 0.0
    if kind.endswith("aniso"):
        sigma_y = rng.uniform(*config.blur_sigma)
        angle = rng.uniform(-math.pi, math.pi)
    along = (math.cos(angle) * x + math.sin(angle) * y) / sigma_x
    across = (-math.sin(angle) * x + math.cos(angle) * y) / sigma_y
    distance = along**2 + across**2
    if kind.startswith("generalised"):
        bell = np.exp(-0.5 * distance ** _sample_shape(rng, config.generalised_shape))
    elif kind.startswith("plateau"):
        bell = 1 / (distance ** _sample_shape(rng, config.plateau_shape) + 1)
    else:
        bell = np.exp(-0.5 * distance)
    return (bell / bell.sum()).astype(np.float32)


def _sample_shape(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """The exponent of a bell: half of them flatter than the Gaussian's 1, half more peaked, as in
    Real-ESRGAN (Wang et al., 2021); drawn uniformly over ``bounds``, few would be below 1."""
    low, high = bounds
    return rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)


def _sinc_kernel(rng: np.random.Generator) -> NDArray[np.float32]:
    """A circular low-pass filter with the ringing that sharpening and some resizers leave."""
    size = int(rng.choice(KERNEL_SIZES))
    cutoff = rng.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi)
    # The frequency response of an ideal disc, sampled finely and transformed back: the Bessel
    # function J1 by quadrature, J1(r) = mean over angles of cos(angle - r sin(angle)).
    x, y = _grid(size)
    radius = np.hypot(x, y)
    angles = (np.arange(64) + 0.5) * math.pi / 64
    bessel = np.cos(angles - cutoff * radius[..., None] * np.sin(angles)).mean(axis=-1)
    kernel = cutoff * bessel / (2 * math.pi * np.maximum(radius, 1e-9))
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return (kernel / kernel.sum()).astype(np.float32)


def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    radius = size // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    return x, y


def _filter(frame: Frame, kernel: NDArray[np.float32]) -> Frame:
    return cv2.filter2D(frame, -1, kernel, borderType=cv2.BORDER_REFLECT)


def _add_noise(frame: Frame, noise: Noise, rng: np.random.Generator) -> Frame:
    if noise.kind == "gaussian":
        shape = (*frame.shape[:2], 1 if noise.grey else 3)
        return np.clip(frame + noise.amount * rng.standard_normal(shape, dtype=np.float32), 0, 1)
    light = np.round(255 * (frame.mean(axis=2, keepdims=True) if noise.grey else frame)) / 255
    # As many photons at full brightness as the frame has grey levels, rounded up to a power of two.
    levels = 2 ** math.ceil(math.log2(max(2, len(np.unique(light)))))
    shot = rng.poisson(light * levels) / levels - light
    return np.clip(frame + noise.amount * shot, 0, 1).astype(np.float32)


def _jpeg(frame: Frame, quality: int) -> Frame:
    pixels = np.round(255 * np.clip(frame, 0, 1)).astype(np.uint8)[..., ::-1]
    _, stream = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(stream, cv2.IMREAD_COLOR)
    assert decoded is not None, "OpenCV cannot read the JPEG it wrote"
    return decoded[..., ::-1].astype(np.float32) / 255
