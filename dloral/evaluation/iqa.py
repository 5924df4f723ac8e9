"""LPIPS, DISTS, MUSIQ, CLIP-IQA and MANIQA through pyiqa, an optional extra.

pyiqa is under the PolyForm Noncommercial licence and fetches each measure's weights from the
network when it is first used, so neither comes with this project::

    pip install pyiqa==0.1.16
"""

from typing import Any

import torch

from dloral.errors import WeightsError
from dloral.evaluation.measures import FrameSet, Measure, MetricSpec

WEIGHTS = "huggingface.co/chaofengc/IQA-PyTorch-Weights"
INSTALL = "pip install pyiqa==0.1.16 (PolyForm Noncommercial licence: not for commercial use)"


class PyIQA(Measure):
    """One of pyiqa's measures, frame by frame; :class:`WeightsError` where it cannot be had."""

    def __init__(self, spec: MetricSpec, device: str = "cpu") -> None:
        self.specs = (spec,)
        try:
            import pyiqa
        except ImportError as error:
            missing = getattr(error, "name", None) or "pyiqa"
            raise WeightsError(
                "{title} needs the package pyiqa ({missing} is missing)",
                remedy=INSTALL,
                title=spec.title,
                missing=missing,
            ) from error
        self.version: str = pyiqa.__version__
        self.device = device
        try:
            self.metric: Any = pyiqa.create_metric(spec.name, device=torch.device(device))
        except Exception as error:  # whatever its downloader and its checks raise
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise WeightsError(
                "pyiqa cannot make {title} ready ({kind}: {reason})",
                remedy=f"its weights are fetched at first use, from {WEIGHTS}; give this machine "
                "the network or the files, or leave it out",
                title=spec.title,
                kind=type(error).__name__,
                reason=reason,
            ) from error

    @torch.no_grad()
    def update(self, frame_set: FrameSet) -> dict[str, float]:
        frames = [frame_set.restored] if self.specs[0].scope == "alone" else [*frame_set[:2]]
        batch = [frame[None].to(self.device) for frame in frames if frame is not None]
        return {self.specs[0].name: float(self.metric(*batch))}

    def conditions(self) -> dict[str, str]:
        return {"pyiqa": self.version}
