"""The adversarial loss: a discriminator on patches, and how much of its gradient is taken.

The enhancement loss of models whose UNet reads no text, in the place of classifier score
distillation: that asks a text-to-image model what a good picture looks like, and the compact base
was never one (docs/decisions.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Frames (B,3,H,W) in [0, 1] -> one logit for each 4 x 4 pixels, (B,1,H/4,W/4).

    Each logit sees 39 pixels a side: texture, not composition (PatchGAN, Isola et al., 2017), with
    spectral normalisation (Miyato et al., 2018).
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = ((3, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1))
        widths += ((2 * width, 4 * width, 2), (4 * width, 4 * width, 1))
        layers: list[nn.Module] = []
        for inner, outer, stride in widths:
            size = 4 if stride == 2 else 3  # divisible by the stride, so that no pixel counts twice
            conv = nn.Conv2d(inner, outer, size, stride, padding=1)
            layers += [spectral_norm(conv), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(4 * width, 1, 3, padding=1)))

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(2 * frames - 1).float()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The logistic loss (Goodfellow et al., 2014)."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Its non-saturating counterpart."""
    return F.softplus(-fake_logits).mean()


def balanced_gradient(other: Tensor, adversarial: Tensor, share: float) -> Tensor:
    """Gradients at the frames, joined: the adversarial one scaled to ``share`` of the other's norm.

    A fixed weight means something else at every stage of a training; this one does not (in the
    manner of VQGAN's adaptive weight, Esser et al., 2021, but at the output).
    """
    scale = share * other.norm() / adversarial.norm().clamp(min=1e-12)
    return other + scale * adversarial


def gradient_at(frames: Tensor, loss: Tensor) -> Tensor:
    """d loss / d frames, keeping the graph below the frames for the caller's own backward."""
    return torch.autograd.grad(loss, frames, retain_graph=True)[0]
