"""The degradation of :mod:`dloral.data.degradation` on batches of clips, on any device.

One call degrades N clips together, fast enough to make pairs while a GPU trains. The draws come
from :func:`sample_degradation`, stored in advance in a :class:`DegradationBank`. What sets a
picture's size (resize factors, interpolations, the position of the last JPEG) is shared by the
clips of one call; kernels, noise and JPEG quality are each clip's own.

Legend: N clips, T frames per clip, H x W size. Frames are float32 RGB in [0, 1].
"""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from dloral.data.degradation import (
    KERNEL_SIZES,
    DegradationConfig,
    DegradationDraw,
    Order,
    sample_degradation,
)

LARGEST_KERNEL = max(KERNEL_SIZES)
MODES = {cv2.INTER_AREA: "area", cv2.INTER_LINEAR: "bilinear", cv2.INTER_CUBIC: "bicubic"}

# Annex K of the JPEG standard (ITU-T T.81): the tables every encoder scales by its quality.
LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# BT.601, full range, as JFIF has it: rows Y, Cb, Cr (without the offset of 128).
TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


@dataclass(frozen=True)
class _OrderBank:
    """One of the two orders for M draws: kernels (M,K,K) that sum to 1, and (M,) values."""

    kernels: Tensor
    gaussian: Tensor
    amount: Tensor
    grey: Tensor
    quality: Tensor

    @classmethod
    def of(cls, orders: list[Order], device: torch.device) -> Self:
        kernels = np.stack([_framed(order.kernel) for order in orders])
        return cls(
            torch.from_numpy(kernels).to(device),
            torch.tensor([order.noise.kind == "gaussian" for order in orders], device=device),
            torch.tensor([order.noise.amount for order in orders], device=device),
            torch.tensor([order.noise.grey for order in orders], device=device),
            torch.tensor([float(order.jpeg_quality) for order in orders], device=device),
        )

    def chosen(self, rows: Tensor) -> "_OrderBank":
        return _OrderBank(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def _framed(kernel: np.ndarray | None) -> np.ndarray:
    """The kernel centred in the largest kernel's frame; None becomes a single 1."""
    kernel = np.ones((1, 1), np.float32) if kernel is None else kernel
    margin = (LARGEST_KERNEL - len(kernel)) // 2
    return np.pad(kernel, margin)


class DegradationBank:
    """``count`` draws of :func:`sample_degradation` from ``seed``, as tensors on ``device``."""

    def __init__(
        self,
        count: int,
        seed: int,
        device: torch.device | str = "cpu",
        config: DegradationConfig | None = None,
    ) -> None:
        rng = np.random.default_rng((seed, count))
        self.draws: list[DegradationDraw] = [sample_degradation(rng, config) for _ in range(count)]
        device = torch.device(device)
        self.first = _OrderBank.of([draw.first for draw in self.draws], device)
        self.second = _OrderBank.of([draw.second for draw in self.draws], device)
        sincs = np.stack([_framed(draw.final_sinc) for draw in self.draws])
        self.sincs = torch.from_numpy(sincs).to(device)

    @torch.no_grad()
    def degrade(
        self, hq_frames: Tensor, rng: np.random.Generator, generator: Generator | None = None
    ) -> Tensor:
        """(N,T,3,H,W), H and W multiples of the scale -> (N,T,3,H/s,W/s), rounded to 8 bits.

        A clip's first order, second order and last filter come from three draws of the bank, so
        there are far more combinations than draws. Noise is drawn on the device by ``generator``,
        or else by torch's own, which ``torch.manual_seed`` seeds.
        """
        shape, device = hq_frames.shape, hq_frames.device
        rows = torch.from_numpy(rng.integers(len(self.draws), size=(3, shape[0]))).to(device)
        shared = self.draws[rng.integers(len(self.draws))]
        height, width = (side // shared.scale for side in shape[-2:])
        first, second = self.first.chosen(rows[0]), self.second.chosen(rows[1])
        frames = _blur_resize_noise(hq_frames, first, shared.first, shape[-2:], generator)
        frames = jpeg(frames, first.quality)
        frames = _blur_resize_noise(frames, second, shared.second, (height, width), generator)
        if shared.jpeg_before_resize:
            frames = jpeg(frames, second.quality)
        frames = _resize(frames, (height, width), shared.final_interpolation).clamp(0, 1)
        frames = blur(frames, self.sincs[rows[2]]).clamp(0, 1)
        if not shared.jpeg_before_resize:
            frames = jpeg(frames, second.quality)
        return (255 * frames).round() / 255


def _blur_resize_noise(
    frames: Tensor,
    own: _OrderBank,
    shared: Order,
    base_size: torch.Size | tuple[int, int],
    generator: Generator | None,
) -> Tensor:
    frames = blur(frames, own.kernels)
    size = tuple(max(8, int(side * shared.resize_factor)) for side in base_size)
    return _add_noise(_resize(frames, size, shared.interpolation).clamp(0, 1), own, generator)


def blur(frames: Tensor, kernels: Tensor) -> Tensor:
    """Each clip (N,T,3,H,W) by its own kernel (N,K,K), borders mirrored; by Fourier transform,
    which costs the same for every kernel."""
    clips, margin = len(frames), kernels.shape[-1] // 2
    height, width = frames.shape[-2:]
    padded = F.pad(frames.flatten(0, 1), (margin,) * 4, mode="reflect").unflatten(0, (clips, -1))
    # Few different lengths, so that plans are reused: the next multiple of 32.
    rows, columns = (-(-(side + 2 * margin) // 32) * 32 for side in (height, width))
    spectrum = torch.fft.rfft2(padded, s=(rows, columns))
    # cv2.filter2D correlates; flipped kernels make the product a correlation too.
    response = torch.fft.rfft2(kernels.flip(-2, -1), s=(rows, columns))[:, None, None]
    filtered = torch.fft.irfft2(spectrum * response, s=(rows, columns))
    return filtered[..., 2 * margin : 2 * margin + height, 2 * margin : 2 * margin + width]


def _resize(frames: Tensor, size: tuple[int, ...], interpolation: int) -> Tensor:
    mode = MODES[interpolation]
    if mode == "area" and size[0] >= frames.shape[-2]:
        mode = "bilinear"  # as OpenCV does when it enlarges
    corners = None if mode == "area" else False
    resized = F.interpolate(frames.flatten(0, 1), size, mode=mode, align_corners=corners)
    return resized.unflatten(0, frames.shape[:2])


def _add_noise(frames: Tensor, own: _OrderBank, generator: Generator | None) -> Tensor:
    """Gaussian or shot noise, coloured or grey, per clip; see ``degradation._add_noise``."""
    gaussian, grey, amount = (
        part.view(-1, 1, 1, 1, 1) for part in (own.gaussian, own.grey, own.amount)
    )
    white = torch.randn(frames.shape, generator=generator, device=frames.device, dtype=frames.dtype)
    white = torch.where(grey, white[:, :, :1], white)
    light = torch.where(grey, frames.mean(dim=2, keepdim=True), frames)
    codes = (255 * light).round()
    levels = _grey_levels(codes)
    photons = codes / 255 * levels
    shot = torch.poisson(photons, generator)
    # Grey shot noise is one draw for the three channels, which hold equal light.
    shot = torch.where(grey, shot[:, :, :1], shot)
    shot = (shot - photons) / levels
    return (frames + amount * torch.where(gaussian, white, shot)).clamp(0, 1)


def _grey_levels(codes: Tensor) -> Tensor:
    """How many distinct values of 0 to 255 each frame (N,T,3,H,W) has, rounded up to a power of
    two: (N,T,1,1,1)."""
    found = torch.zeros(*codes.shape[:2], 256, device=codes.device)
    found.scatter_(2, codes.flatten(2).long(), 1.0)
    return found.sum(dim=2).clamp(min=2).log2().ceil().exp2()[..., None, None, None]


def jpeg(frames: Tensor, quality: Tensor) -> Tensor:
    """What baseline JPEG with 4:2:0 chroma leaves of (N,T,3,H,W) at each clip's quality (N,).

    The colour transform, 8 x 8 cosine transform and scaled quantisation of libjpeg, in float32;
    it differs from OpenCV's by rounding alone.
    """
    height, width = frames.shape[-2:]
    pixels = (255 * frames).round()
    pixels = F.pad(pixels.flatten(0, 1), (0, -width % 16, 0, -height % 16), mode="replicate")
    matrix = frames.new_tensor(TO_YCBCR)
    ycbcr = torch.einsum("ij,njhw->nihw", matrix, pixels).round()
    luma, chroma = ycbcr[:, :1] - 128, F.avg_pool2d(ycbcr[:, 1:], 2).round()
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    scale = scale.repeat_interleave(frames.shape[1])  # one per frame
    luma = _quantised(luma, LUMA_TABLE, scale) + 128
    chroma = _quantised(chroma, CHROMA_TABLE, scale)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).round()
    rgb = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), torch.cat([luma, chroma], 1))
    decoded = rgb[..., :height, :width].round().clamp(0, 255) / 255
    return decoded.unflatten(0, frames.shape[:2])


def _quantised(planes: Tensor, table: tuple[tuple[int, ...], ...], scale: Tensor) -> Tensor:
    """Planes (B,C,H,W) through the 8 x 8 cosine transform, quantised, and back; scale (B,)."""
    steps = ((planes.new_tensor(table) * scale.view(-1, 1, 1) + 50) / 100).floor().clamp(1, 255)
    basis = _cosines(planes)
    blocks = planes.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))  # (B,C,h,8,w,8)
    # Rows last, then columns last, so that each transform is one large product.
    spectrum = ((blocks @ basis.T).transpose(-3, -1) @ basis.T).transpose(-3, -1)
    steps = steps[:, None, None, :, None]
    spectrum = (spectrum / steps).round() * steps
    blocks = ((spectrum @ basis).transpose(-3, -1) @ basis).transpose(-3, -1)
    return blocks.flatten(-4, -3).flatten(-2, -1).round()


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal cosine transform of 8 samples, (8,8): row k is frequency k."""
    k = torch.arange(8, device=like.device, dtype=like.dtype)
    basis = torch.cos(torch.pi * (2 * k + 1) * k[:, None] / 16) / 2
    basis[0] /= 2**0.5
    return basis
