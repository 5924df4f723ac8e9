"""How steady a clip is over time: warping error and flicker, along estimated motion.

**Warping error**, E*_warp. For every frame t > 0, with the motion from t to t-1 taken from the
*guide* (the ground truth where there is one, else the input, else the clip itself)::

    E_t = mean over channels and unmasked pixels of (x_t - sample(x_{t-1}, flow))^2
    E   = mean over t of E_t, reported x 1e-3: "1.51" means 1.51e-3

with pixels in [0, 1], RGB, at the output's resolution, bilinear sampling. A pixel is masked where
its motion leaves the picture or where forward and backward motion disagree (Sundaram et al., 2010,
with the constants of Lai et al., ECCV 2018)::

    |f + b|^2 > 0.01 (|f|^2 + |b|^2) + 0.5        f: t to t-1, b: t-1 to t sampled at the end of f

Published definitions differ (in range, mask, network, resolution), so all of this is printed with
every figure.

**Flicker** (our decision): how much the brightness of areas jumps along the motion. Over cells of
16 x 16 pixels, the mean change of luma, ``x_t - sample(x_{t-1}, flow)``, minus the same for the
ground truth where there is one, so that real changes of light do not count; the mean of its
absolute value over cells, in grey levels of 255. The warping error sees fine noise; this does not.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dloral.errors import Setting, WeightsError
from dloral.evaluation.fidelity import as_array
from dloral.evaluation.measures import FrameSet, Measure, MetricSpec
from dloral.evaluation.torchvision_ops import import_torchvision

MASK_SLOPE = 0.01
MASK_OFFSET = 0.5  # squared pixels
CELL = 16  # pixels
GREY = (0.299, 0.587, 0.114)
RAFT_ADDRESS = "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth"


class FlowEstimator(Protocol):
    """Motion between two frames."""

    @property
    def name(self) -> str:
        """The method, with the settings its figures depend on."""

    def __call__(self, current: Tensor, previous: Tensor) -> Tensor:
        """Frames (3,H,W) in [0, 1] -> flow_current_to_previous (2,H,W), (dx, dy) in pixels."""


class DISFlow:
    """Dense inverse search (Kroeger et al., ECCV 2016) from OpenCV; needs no weights."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def _method(self) -> Any:
        """One per thread, since OpenCV's estimator keeps its own buffers."""
        if not hasattr(self._of_thread, "method"):
            kind: Any = cv2.DISOpticalFlow
            preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
            self._of_thread.method = kind.create(preset)
        return self._of_thread.method

    @property
    def name(self) -> str:
        return f"DIS, preset medium, OpenCV {cv2.__version__}, grey at full resolution"

    def __call__(self, current: Tensor, previous: Tensor) -> Tensor:
        pair = [
            cv2.cvtColor((255 * as_array(frame)).round().astype(np.uint8), cv2.COLOR_RGB2GRAY)
            for frame in (current, previous)
        ]
        flow = self._method().calc(*pair, None)
        return torch.from_numpy(flow).permute(2, 0, 1)


class RAFTFlow:
    """RAFT (Teed & Deng, ECCV 2020), torchvision's large network, with weights from a file.

    Frame sides are made multiples of 8; values in [-1, 1], 12 updates. Raises
    :class:`WeightsError` where torchvision or the weights are missing.
    """

    def __init__(self, weights: Path | None, device: str = "cpu") -> None:
        try:
            import_torchvision()
            from torchvision.models.optical_flow import raft_large
        except ImportError as error:
            raise WeightsError(
                "RAFT needs torchvision",
                remedy="install the one that goes with this torch, or choose {instead}",
                instead=Setting("flow", "dis"),
            ) from error
        path = weights or Path(torch.hub.get_dir()) / "checkpoints" / Path(RAFT_ADDRESS).name
        if not path.is_file():
            raise WeightsError(
                "{path} does not exist",
                remedy=f"download {RAFT_ADDRESS} to it, give another file by {{option}}, "
                "or choose {instead}",
                path=path,
                option=Setting("flow_weights"),
                instead=Setting("flow", "dis"),
            )
        self.weights = path.name
        self.device = device
        self.network: Any = raft_large(weights=None)
        try:
            self.network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        except Exception as error:  # damaged, not a state dict, or for another network
            raise WeightsError(
                "{path} does not hold the weights of RAFT (large)",
                remedy=f"get {RAFT_ADDRESS}",
                path=path,
            ) from error
        self.network.to(device).eval()

    @property
    def name(self) -> str:
        return f"RAFT large (torchvision), {self.weights}, 12 updates"

    @torch.no_grad()
    def __call__(self, current: Tensor, previous: Tensor) -> Tensor:
        height, width = current.shape[-2:]
        size = (max(128, -(-height // 8) * 8), max(128, -(-width // 8) * 8))
        pair = [
            F.interpolate(2 * frame[None].to(self.device) - 1, size, mode="bilinear")
            for frame in (current, previous)
        ]
        flow = F.interpolate(self.network(*pair)[-1], (height, width), mode="bilinear")[0].cpu()
        return flow * flow.new_tensor([width / size[1], height / size[0]]).view(2, 1, 1)


def make_flow(kind: str, weights: str | None = None, device: str = "cpu") -> FlowEstimator:
    """The estimator named "dis" or "raft"."""
    return RAFTFlow(Path(weights) if weights else None, device) if kind == "raft" else DISFlow()


def sample(previous: Tensor, flow_current_to_previous: Tensor) -> tuple[Tensor, Tensor]:
    """(``previous`` (C,H,W) where the flow (2,H,W) points, which pixels point inside (H,W)).

    Bilinear, in pixel coordinates: whole displacements give exactly the values of ``previous``,
    which torch's grid_sample, with its coordinates from -1 to 1, misses by rounding.
    """
    height, width = previous.shape[-2:]
    flow = flow_current_to_previous.to(previous.device, torch.float32)
    x = flow[0] + torch.arange(width, device=flow.device)
    y = flow[1] + torch.arange(height, device=flow.device)[:, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    flat = previous.flatten(1)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return flat.index_select(1, (row * width + column).flatten()).view_as(previous)

    across, down = x - left, y - top
    above = torch.lerp(at(top, left), at(top, right), across)
    below = torch.lerp(at(bottom, left), at(bottom, right), across)
    return torch.lerp(above, below, down), inside


def agreement_mask(flow: Tensor, flow_back: Tensor, inside: Tensor) -> Tensor:
    """(H,W) True where a pixel of the current frame is seen in the previous one.

    ``flow`` (2,H,W): current to previous; ``flow_back`` (2,H,W): previous to current, sampled where
    ``flow`` ends; ``inside`` (H,W): where that is in the picture.
    """
    gap = (flow + flow_back).square().sum(dim=0)
    length = (flow.square() + flow_back.square()).sum(dim=0)
    return inside & (gap <= MASK_SLOPE * length + MASK_OFFSET)


def warping_error(current: Tensor, aligned: Tensor, mask: Tensor) -> float:
    """E_t x 1e3 of a frame and its aligned predecessor (3,H,W) in [0, 1]; nan if all is masked."""
    return 1e3 * (current - aligned).square().mean(dim=0)[mask].double().mean().item()


def cell_changes(current: Tensor, aligned: Tensor, mask: Tensor) -> Tensor:
    """Mean change of luma in each 16 x 16 cell with unmasked pixels, in grey levels, (cells,)."""
    weights = current.new_tensor(GREY).view(3, 1, 1)
    grey = 255 * ((current - aligned) * weights).sum(dim=0) * mask
    side = min(CELL, *grey.shape)
    sums, seen = (F.avg_pool2d(part[None, None].float(), side) for part in (grey, mask))
    return (sums / seen)[seen > 0]


class Steadiness(Measure):
    """The warping error and flicker of a clip, from one motion estimate per frame."""

    def __init__(
        self, specs: tuple[MetricSpec, ...], flow: FlowEstimator, on_restored: bool = False
    ) -> None:
        self.specs = specs
        self.flow = flow
        self.on_restored = on_restored
        self._before: FrameSet | None = None
        self._about: dict[str, str] = {}
        self._beside = ThreadPoolExecutor(1)

    def update(self, frame_set: FrameSet) -> dict[str, float]:
        before, self._before = self._before, frame_set
        if before is None:
            return {}
        guides = [s.restored if self.on_restored else s.guide for s in (frame_set, before)]
        backwards = self._beside.submit(self.flow, guides[1], guides[0])
        flow = self.flow(*guides)
        flow_back = backwards.result()
        parts = [flow_back, before.restored, *([] if before.hq is None else [before.hq])]
        sampled, inside = sample(torch.cat(parts), flow)
        mask = agreement_mask(flow, sampled[:2], inside)
        self._about = self._conditions(frame_set, mask)
        if not mask.any():
            return {}
        values = {"warping_error": warping_error(frame_set.restored, sampled[2:5], mask)}
        changes = cell_changes(frame_set.restored, sampled[2:5], mask)
        if frame_set.hq is not None:
            changes = changes - cell_changes(frame_set.hq, sampled[5:8], mask)
        values["flicker"] = changes.abs().mean().item()
        return {spec.name: values[spec.name] for spec in self.specs}

    def _conditions(self, frame_set: FrameSet, mask: Tensor) -> dict[str, str]:
        height, width = mask.shape
        guide = "restored clip itself" if self.on_restored else frame_set.guide_name
        return {
            "flow": f"{self.flow.name}, {width}x{height}, on the {guide}",
            "mask": f"forward-backward, {MASK_SLOPE} and {MASK_OFFSET}, and the picture's edges",
            "warping error": "RGB in [0, 1], mean squared difference of unmasked pixels, x 1e-3",
        }

    def conditions(self) -> dict[str, str]:
        return self._about
