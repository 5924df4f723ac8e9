"""Optical flow at latent resolution (SPyNet) and warping by it.

Legend: B batch, H x W picture (here: latent) size, 2 flow channels (dx, dy) in cells of that grid.
A flow ``flow_current_to_previous`` says, for every cell of the current frame, where its content
lies in the previous frame; sampling the previous frame there aligns it with the current one.

Source: Ranjan & Black, "Optical Flow Estimation using a Spatial Pyramid Network" (2017); the
layout, the resizing and the normalisation are those DLoRAL's released weights were trained with.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def warp(previous: Tensor, flow_current_to_previous: Tensor, padding: str = "zeros") -> Tensor:
    """Sample ``previous`` (B,C,H,W) where the flow (B,2,H,W), in cells, points; bilinear.

    Places outside the picture read as 0 (``padding="zeros"``, what step 3 of the generator uses)
    or as the nearest edge cell (``"border"``, inside SPyNet). Coordinates are float32 whatever
    the pictures are: bfloat16 would round a position in the hundreds to whole cells.
    """
    height, width = previous.shape[-2:]
    flow = flow_current_to_previous.float()
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
    x = columns + flow[:, 0]
    y = rows[:, None] + flow[:, 1]
    # grid_sample with align_corners=True puts cell 0 at -1 and cell size-1 at +1.
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=-1)
    sampled = F.grid_sample(
        previous.float(), grid, "bilinear", padding_mode=padding, align_corners=True
    )
    return sampled.to(previous.dtype)


def warp_unfolded(previous: Tensor, flow_current_to_previous: Tensor, fold: int) -> Tensor:
    """:func:`warp` of latents (B,C,H,W) whose channels hold ``fold`` x ``fold`` places each.

    A shift by a fraction of a cell then moves what they hold, whereas :func:`warp` of whole cells
    would mix neighbours' channels (our decision). The flow (B,2,H,W) stays in cells.
    """
    if fold == 1:
        return warp(previous, flow_current_to_previous)
    finer = fold * F.interpolate(flow_current_to_previous, scale_factor=fold, mode="bilinear")
    return F.pixel_unshuffle(warp(F.pixel_shuffle(previous, fold), finer), fold)


class FlowLevel(nn.Sequential):
    """One level: (current, warped previous, flow so far) (B,8,H,W) -> correction (B,2,H,W)."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        widths = (8, *channels, 2)
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 7, padding=3), nn.ReLU()]
        super().__init__(*layers[:-1])  # the correction itself is signed: no ReLU at the end
        for layer in layers[:-2:2]:
            # With torch's smaller start the correction is lost in the biases, and training stays
            # at "no motion" for thousands of steps.
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]


class SPyNet(ModelMixin, ConfigMixin):
    """Coarse-to-fine flow from current to previous, for pictures (B,3,H,W) of any size.

    ``levels=6`` and ``channels=(32, 64, 32, 16)`` are the published network; the compact model is
    narrower. The pyramid halves ``levels - 1`` times, so inputs are resized (bilinear) to a
    multiple of ``2 ** (levels - 1)`` and the flow is scaled back.
    """

    @register_to_config
    def __init__(self, levels: int = 6, channels: tuple[int, ...] = (32, 64, 32, 16)) -> None:
        super().__init__()
        self.pyramid = nn.ModuleList(FlowLevel(tuple(channels)) for _ in range(levels))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """Flow (B,2,H,W) in cells of the given pictures (B,3,H,W).

        The generator passes pictures in [-1, 1] although the normalisation is the one for [0, 1]:
        the released weights were trained that way, and so are the compact ones.
        """
        height, width = current.shape[-2:]
        current, previous = current.float(), previous.float()
        multiple = 2 ** (len(self.pyramid) - 1)
        padded_height = -(-height // multiple) * multiple
        padded_width = -(-width // multiple) * multiple
        size = (padded_height, padded_width)
        if size == (height, width):
            return self.coarse_to_fine(current, previous)[-1]
        flow = self.coarse_to_fine(
            F.interpolate(current, size, mode="bilinear", align_corners=False),
            F.interpolate(previous, size, mode="bilinear", align_corners=False),
        )[-1]
        flow = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
        return flow * flow.new_tensor([width / padded_width, height / padded_height]).view(
            1, 2, 1, 1
        )

    def coarse_to_fine(self, current: Tensor, previous: Tensor) -> list[Tensor]:
        """The flow after every level, coarsest first, each in cells of its own level; training
        supervises all of them. Sizes must be multiples of ``2 ** (levels - 1)``."""
        currents = [self.normalise(current)]
        previouses = [self.normalise(previous)]
        for _ in range(len(self.pyramid) - 1):
            currents.append(F.avg_pool2d(currents[-1], 2))
            previouses.append(F.avg_pool2d(previouses[-1], 2))
        batch, _, height, width = currents[-1].shape
        flow = current.new_zeros(batch, 2, height, width)
        flows: list[Tensor] = []
        dtype = self.dtype
        steps = zip(self.pyramid, reversed(currents), reversed(previouses), strict=True)
        for depth, (level, now, before) in enumerate(steps):
            if depth:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            aligned = warp(before, flow, padding="border")
            flow = flow + self.correct(level, now, aligned, flow, dtype)
            flows.append(flow)
        return flows

    def correct(
        self,
        level: nn.Module,
        current: Tensor,
        aligned: Tensor,
        flow: Tensor,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """One level's correction; convolutions in the weights' dtype, flow in float32. ``dtype``:
        the weights', if the caller knows it: diffusers searches every layer for it."""
        seen = torch.cat([current, aligned, flow], dim=1)
        return level(seen.to(dtype or self.dtype)).float()

    def normalise(self, pictures: Tensor) -> Tensor:
        """Normalise by ImageNet's mean and deviation, as the levels expect."""
        return (pictures.float() - self.mean.float()) / self.std.float()
