"""Other packages' measures: LPIPS and DISTS by torchmetrics, MUSIQ, CLIP-IQA, MANIQA by pyiqa.

Both are optional. torchmetrics (Apache 2.0) ships the heads of LPIPS and DISTS; their trunks are
torchvision's. pyiqa is under the PolyForm Noncommercial licence. Trunks and pyiqa's weights are
fetched on first use; none of it comes with this project.
"""

from typing import Any

import torch

from dloral.errors import WeightsError
from dloral.evaluation.measures import FrameSet, Measure, MetricSpec
from dloral.evaluation.torchvision_ops import import_torchvision

TORCHMETRICS_INSTALL = "python -m pip install torchmetrics torchvision"
PYIQA_INSTALL = (
    "see docs/evaluation.md for how to install it (PolyForm Noncommercial licence: not for "
    "commercial use)"
)
TRUNKS = {
    "lpips": "download.pytorch.org/models/alexnet-owt-7be5be79.pth (233 MB)",
    "dists": "download.pytorch.org/models/vgg16-397923af.pth (528 MB)",
}
PYIQA_WEIGHTS = {
    "musiq": "huggingface.co/chaofengc/IQA-PyTorch-Weights (musiq_koniq_ckpt-e95806b9.pth, 109 MB)",
    "clipiqa": "openaipublic.azureedge.net/clip/models (RN50.pt, 244 MB)",
    "maniqa": "huggingface.co/chaofengc/IQA-PyTorch-Weights (ckpt_koniq10k.pt) and "
    "huggingface.co/timm/vit_base_patch8_224.augreg2_in21k_ft_in1k",
}


class TorchMetric(Measure):
    """LPIPS (AlexNet) or DISTS (VGG16) by torchmetrics, frame by frame.

    Raises :class:`WeightsError` where the package or the trunk's weights are unavailable.
    """

    def __init__(self, spec: MetricSpec, device: str = "cpu") -> None:
        self.specs = (spec,)
        try:
            import_torchvision()
            import torchmetrics
            from torchmetrics.image.dists import DeepImageStructureAndTextureSimilarity
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        except ImportError as error:
            raise _not_installed(spec, "torchmetrics", error, TORCHMETRICS_INSTALL) from error
        self.version: str = torchmetrics.__version__
        self.device = device
        try:
            metric: Any = (
                LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
                if spec.name == "lpips"
                else DeepImageStructureAndTextureSimilarity()
            )
        except Exception as error:  # whatever torch's downloader raises
            raise _not_ready(spec, "torchmetrics", error, TRUNKS[spec.name]) from error
        self.metric = metric.to(device)

    @torch.no_grad()
    def update(self, frame_set: FrameSet) -> dict[str, float]:
        frames = [frame[None].to(self.device) for frame in frame_set[:2] if frame is not None]
        value = float(self.metric(*frames))
        self.metric.reset()
        return {self.specs[0].name: value}

    def conditions(self) -> dict[str, str]:
        return {"torchmetrics": self.version}


class PyIQA(Measure):
    """One of pyiqa's measures, frame by frame; ``options`` go to ``pyiqa.create_metric``.

    Raises :class:`WeightsError` where the package or its weights are unavailable.
    """

    def __init__(self, spec: MetricSpec, device: str = "cpu", **options: Any) -> None:
        self.specs = (spec,)
        try:
            import_torchvision()
            import pyiqa
        except ImportError as error:
            raise _not_installed(spec, "pyiqa", error, PYIQA_INSTALL) from error
        self.version: str = pyiqa.__version__
        self.device = device
        try:
            self.metric: Any = pyiqa.create_metric(
                spec.name, device=torch.device(device), **options
            )
        except Exception as error:  # whatever its downloader and its checks raise
            raise _not_ready(spec, "pyiqa", error, PYIQA_WEIGHTS[spec.name]) from error

    @torch.no_grad()
    def update(self, frame_set: FrameSet) -> dict[str, float]:
        return {self.specs[0].name: float(self.metric(frame_set.restored[None].to(self.device)))}

    def conditions(self) -> dict[str, str]:
        return {"pyiqa": self.version}


def _not_installed(
    spec: MetricSpec, package: str, error: ImportError, install: str
) -> WeightsError:
    return WeightsError(
        "{title} needs the package {package} ({missing} is missing)",
        remedy=install,
        title=spec.title,
        package=package,
        missing=getattr(error, "name", None) or str(error) or package,
    )


def _not_ready(spec: MetricSpec, package: str, error: Exception, weights: str) -> WeightsError:
    return WeightsError(
        "{package} cannot load {title} ({kind}: {reason})",
        remedy=f"its weights are fetched at first use, from {weights}; connect this "
        "machine to the network, or leave it out",
        package=package,
        title=spec.title,
        kind=type(error).__name__,
        reason=" ".join(str(error).split())[:120] or type(error).__name__,
    )
