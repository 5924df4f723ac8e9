"""An adversarial loss for the enhancement stage, for models without a text side for CSD.

A discriminator judges for every pixel whether it belongs to a real frame; the generator is rewarded
for frames that pass as real. It is a small UNet with spectral normalisation (Schonfeld et al.,
2020; Wang et al., "Real-ESRGAN"): local verdicts reward texture rather than composition.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dloral.data.spec import check, one_of

KINDS = ("hinge", "softplus")
LAYOUTS = ("unet", "strided")
REALS = ("truth", "teacher", "both")


@dataclass(frozen=True)
class AdversarialConfig:
    """``kind`` of loss: hinge (Lim & Ye, 2017) or softplus (Goodfellow et al., 2014).
    ``width``: the discriminator's channels at full size; ``levels``: how often it downsamples by 2.
    ``layout``: unet (a verdict per pixel) or strided (one per square of 2 ** levels pixels).
    ``real``: what counts as real: the truth, a teacher's output, or either, chosen per frame. A
    teacher's output is a function of the input, so it can be matched exactly; the truth has texture
    that cannot be inferred from the input (our decision). ``balanced``: the generator's gradient at
    the frames is scaled to the norm of an l1 loss's, so that a weight means the same however steep
    the discriminator is (our decision). ``residual``: the discriminator also sees what the frames
    add to their upscaled inputs, multiplied by this factor; without it (0) it takes five times as
    many steps to tell apart outputs that differ only in fine structure (our decision; measured in
    docs/training.md)."""

    kind: str = "hinge"
    width: int = 32
    levels: int = 3
    layout: str = "unet"
    real: str = "truth"
    balanced: bool = False
    residual: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            {
                "kind": (self.kind in KINDS, one_of(KINDS)),
                "layout": (self.layout in LAYOUTS, one_of(LAYOUTS)),
                "real": (self.real in REALS, one_of(REALS)),
                "width": (self.width >= 1, "1 or more"),
                "levels": (self.levels >= 1, "1 or more"),
                "residual": (self.residual >= 0, "0 or more"),
            },
        )


class PatchDiscriminator(nn.Module):
    """Images (B,C,H,W), H and W multiples of ``2 ** levels`` -> verdicts (B,1,H,W)."""

    def __init__(self, width: int = 32, levels: int = 3, channels: int = 3) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(levels + 1)]
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(wide, wider, 4, 2, 1, bias=False))
            for wide, wider in pairwise(widths)
        )
        self.up = nn.ModuleList(
            spectral_norm(nn.Conv2d(wider, wide, 3, padding=1, bias=False))
            for wide, wider in pairwise(widths)
        )
        self.last = nn.Sequential(
            spectral_norm(nn.Conv2d(width, width, 3, padding=1, bias=False)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        features = F.leaky_relu(self.first(pictures), 0.2)
        skips = []
        for conv in self.down:
            skips.append(features)
            features = F.leaky_relu(conv(features), 0.2)
        for conv, skip in zip(reversed(self.up), reversed(skips), strict=True):
            features = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            features = F.leaky_relu(conv(features), 0.2) + skip
        return self.last(features)


class StridedDiscriminator(nn.Sequential):
    """Images (B,C,H,W) -> verdicts (B,1,h,w), downsampled by 2 ``levels`` times.

    Each verdict sees a patch, texture rather than composition (PatchGAN, Isola et al., 2017).
    """

    def __init__(self, width: int = 64, levels: int = 2, channels: int = 3) -> None:
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(channels, width, 3, padding=1))]
        for level in range(levels):
            inner, outer = width * 2**level, width * 2 ** (level + 1)
            # The stride divides the kernel size, so that all pixels count equally often.
            layers += [nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(inner, outer, 4, 2, 1))]
            layers += [nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(outer, outer, 3, padding=1))]
        last = spectral_norm(nn.Conv2d(width * 2**levels, 1, 3, padding=1))
        super().__init__(*layers, nn.LeakyReLU(0.2), last)


class AdversarialLoss:
    """Generator and discriminator losses. Frames and their upscaled inputs ``lq_frames`` (needed
    with ``config.residual``) are (B,3,H,W) in [0, 1]; every loss is (B,)."""

    def __init__(self, config: AdversarialConfig, seed: int = 0) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layout = StridedDiscriminator if config.layout == "strided" else PatchDiscriminator
            channels = 6 if config.residual else 3
            self.discriminator: nn.Module = layout(config.width, config.levels, channels)

    def generator(self, frames: Tensor, lq_frames: Tensor | None = None) -> Tensor:
        """The generator's loss: how little the frames pass as real; no discriminator gradient."""
        if not self.config.balanced or not frames.requires_grad:
            return self._unconvinced(frames, lq_frames)
        with torch.enable_grad():
            seen = frames.detach().requires_grad_()
            loss = self._unconvinced(seen, lq_frames)
            (gradient,) = torch.autograd.grad(loss.sum(), seen)
        # The length that the gradient of a mean absolute difference has over all samples.
        wanted = (len(frames) / frames[0].numel()) ** 0.5
        gradient = gradient * (wanted / gradient.norm().clamp(min=1e-12))
        along = (frames * gradient).sum(dim=(1, 2, 3))
        return loss.detach() + along - along.detach()

    def critic(
        self, frames: Tensor, real_frames: Tensor, lq_frames: Tensor | None = None
    ) -> Tensor:
        """The discriminator's loss: how badly it tells ``frames`` from ``real_frames``."""
        fake = self._verdicts(frames.detach(), lq_frames)
        real = self._verdicts(real_frames, lq_frames)
        if self.config.kind == "hinge":
            loss = F.relu(1 + fake) + F.relu(1 - real)
        else:
            loss = F.softplus(fake) + F.softplus(-real)
        return loss.mean(dim=(1, 2, 3))

    def _unconvinced(self, frames: Tensor, lq_frames: Tensor | None) -> Tensor:
        with _frozen(self.discriminator):
            verdicts = self._verdicts(frames, lq_frames)
        loss = -verdicts if self.config.kind == "hinge" else F.softplus(-verdicts)
        return loss.mean(dim=(1, 2, 3))

    def _verdicts(self, frames: Tensor, lq_frames: Tensor | None) -> Tensor:
        pictures = 2 * frames - 1
        if self.config.residual:
            assert lq_frames is not None, "the residual is over the enlarged input"
            added = self.config.residual * (frames - lq_frames)
            pictures = torch.cat([pictures, added], dim=1)
        found: Tensor = self.discriminator(pictures)
        return found.float()


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
