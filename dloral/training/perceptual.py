"""The perceptual loss's network: LPIPS where its weights are available, else VGG-trunk features.

LPIPS (Zhang et al., 2018) is an ImageNet VGG16, which must be downloaded, with linear heads from
the PyPI package ``lpips``. Offline, a VGG16 trunk tuned for edges is used instead
(:mod:`dloral.models.perceptual`); the distance between its features is a different measure, called
``feature`` in configurations and logs.
"""

import logging
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn

from dloral.errors import WeightsError
from dloral.models.perceptual import (
    BLOCKS,
    INSTALL,
    VGGTrunk,
    load_vgg_trunk,
    package_file,
    unit_length,
)
from dloral.training.losses import FeatureDistance
from dloral.weights.checkpoint_io import first_line, quiet_hub

IMAGENET_VGG = ("timm/vgg16.tv_in1k", "model.safetensors")
LPIPS_SHIFT = (-0.030, -0.088, -0.188)
LPIPS_SCALE = (0.458, 0.448, 0.450)
FEATURE_BLOCKS = 3

log = logging.getLogger(__name__)


class LPIPS(nn.Module):
    """LPIPS v0.1 on VGG16: two frames (B,3,H,W) in [0, 1] -> distance (B,)."""

    def __init__(self, trunk: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> None:
        """``trunk``: torchvision's names (``features.0.weight``); ``heads``: the package's
        (``lin0.model.1.weight``)."""
        super().__init__()
        self.blocks = VGGTrunk().blocks
        convolutions = [m for m in self.blocks.modules() if isinstance(m, nn.Conv2d)]
        names = sorted(
            {name.rpartition(".")[0] for name in trunk if name.startswith("features.")},
            key=lambda name: int(name.split(".")[1]),
        )
        with torch.no_grad():
            for conv, name in zip(convolutions, names, strict=True):
                conv.weight.copy_(trunk[f"{name}.weight"])
                assert conv.bias is not None
                conv.bias.copy_(trunk[f"{name}.bias"])
        self.shift: Tensor
        self.scale: Tensor
        for depth in range(len(BLOCKS)):
            self.register_buffer(f"head{depth}", heads[f"lin{depth}.model.1.weight"])
        self.register_buffer("shift", torch.tensor(LPIPS_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(LPIPS_SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, frames: Tensor, hq_frames: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._features(hq_frames)
        distance = frames.new_zeros(len(frames))
        for depth, (ours, theirs) in enumerate(zip(self._features(frames), wanted, strict=True)):
            head = getattr(self, f"head{depth}")
            distance = distance + F.conv2d((ours - theirs).square(), head).mean(dim=(1, 2, 3))
        return distance

    def _features(self, frames: Tensor) -> list[Tensor]:
        features = (2 * frames - 1 - self.shift) / self.scale
        found = []
        for depth, block in enumerate(self.blocks):
            if depth:
                features = F.max_pool2d(features, 2)
            features = block(features)
            found.append(unit_length(features))
        return found


def load_perceptual(wanted: str) -> tuple[str, nn.Module]:
    """The actual name and the network of the loss ``lpips``, ``feature`` or ``perceptual`` (the
    first of the two that is available); raises :class:`WeightsError`."""
    if wanted != "feature":
        try:
            return "lpips", _load_lpips()
        except WeightsError as error:
            if wanted == "lpips":
                raise
            log.warning("the perceptual loss uses VGG-trunk features, not LPIPS: %s", error)
    return "feature", FeatureDistance(load_vgg_trunk(FEATURE_BLOCKS))


def _load_lpips() -> LPIPS:
    path = package_file("lpips", "weights/v0.1/vgg.pth", f"it contains the LPIPS heads: {INSTALL}")
    heads = torch.load(path, weights_only=True, map_location="cpu")
    try:
        with quiet_hub():
            trunk = load_file(hf_hub_download(*IMAGENET_VGG))
    except Exception as error:  # the Hub client raises whatever its transport does
        raise WeightsError(
            f"the ImageNet VGG16 ({IMAGENET_VGG[0]}) could not be fetched: {first_line(error)}"
        ) from error
    return LPIPS(trunk, heads)
