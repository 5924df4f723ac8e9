"""Frames of the real example clips, degraded in several ways, and small clips made of them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from torch import Tensor

from dloral.video.reader import read_frames

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
EXAMPLES = Path(__file__).parents[2] / "examples"
HEIGHT, WIDTH = 144, 256


def frames_of(name: str, count: int) -> Tensor:
    """The first frames of an example clip, (T,3,144,256) in [0, 1]."""
    found = []
    with read_frames(EXAMPLES / f"{name}.mp4") as frames:
        for frame in frames:
            found.append(frame.pixels[:, :HEIGHT, :WIDTH])
            if len(found) == count:
                break
    return torch.stack(found)


def degraded(frame: Tensor, seed: int) -> Tensor:
    """Noise, blur, JPEG or a shift of brightness, of a strength drawn from the seed."""
    rng = np.random.default_rng(seed)
    picture = frame.permute(1, 2, 0).numpy()
    kind = seed % 4
    if kind == 0:
        picture = picture + rng.normal(0, rng.uniform(0.01, 0.1), picture.shape)
    elif kind == 1:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 3))
    elif kind == 2:
        quality = int(rng.integers(5, 90))
        codes = (255 * picture).round().astype(np.uint8)
        stored = cv2.imencode(".jpg", codes, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        picture = cv2.imdecode(stored, cv2.IMREAD_COLOR) / 255
    else:
        picture = picture * rng.uniform(0.7, 0.98)
    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1).clamp(0, 1)


@pytest.fixture(scope="session")
def pictures() -> list[Tensor]:
    """Twelve frames (3,144,256), four of each example."""
    clips = (frames_of(name, 40)[::10] for name in ("cars", "city", "people"))
    return [frame for clip in clips for frame in clip]


@pytest.fixture(scope="session")
def picture_pairs(pictures: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Twelve times (degraded, true)."""
    return [(degraded(frame, seed), frame) for seed, frame in enumerate(pictures)]


@pytest.fixture(scope="session")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes frames (T,3,H,W) with the ffmpeg program; arguments choose the codec."""

    def write(
        path: Path, frames: Tensor, *options: str, codec: str = "libx264", pixels: str = "yuv420p"
    ) -> Path:
        height, width = frames.shape[-2:]
        raw = (255 * frames).round().byte().permute(0, 2, 3, 1).contiguous().numpy().tobytes()
        given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25"]
        command = [FFMPEG, "-y", "-loglevel", "error", *given, "-i", "-", "-c:v", codec]
        command += ["-pix_fmt", pixels, *options, str(path)]
        subprocess.run(command, input=raw, check=True)
        return path

    return write
