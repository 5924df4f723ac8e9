"""A tiny model and tiny clips, as the page's tests need them."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dloral.models.adapters import add_adapters
from dloral.training.compact import CompactSizes, build_pipeline


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compact model of a few thousand weights, random but for its start near bicubic."""
    pipe = build_pipeline(CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4))
    add_adapters(pipe.unet, 2)
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


def write_clip(path: Path, frames: int, width: int = 48, height: int = 32, rate: int = 10) -> Path:
    """A bar that moves to the right: frame k is light up to column 2k."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            pixels = np.full((height, width, 3), 40, np.uint8)
            pixels[:, : 2 * index % width] = 200
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames of 48 x 32, 10 a second."""
    return write_clip(tmp_path_factory.mktemp("clip") / "bar.mp4", 12)


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2400 frames: more than a test waits for."""
    return write_clip(tmp_path_factory.mktemp("clip") / "long.mp4", 2400)


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "photo.png"
    ramp = np.linspace(0, 255, 33 * 21 * 3).astype(np.uint8).reshape(21, 33, 3)
    Image.fromarray(ramp).save(path)
    return path


@pytest.fixture(scope="session")
def no_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "letter.mp4"
    path.write_text("this is a letter and no clip\n" * 20)
    return path
