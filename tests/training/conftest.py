"""Two small photographs, packs made from them, and a tiny pipeline to train."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dloral.pipeline import DLoRALPipeline
from dloral.training.compact import CompactSizes, build_pipeline
from dloral.training.packs import Pack
from dloral.training.prepare import PackConfig, list_sources, prepare


def photograph(seed: int, height: int = 220, width: int = 260) -> np.ndarray:
    """Smooth blobs and fine stripes, so that some crops hold more detail than others."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (8, 9, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    picture[:, : width // 2 : 6] //= 2
    return picture


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        cv2.imwrite(str(folder / f"{seed}.png"), photograph(seed))
    return folder


@pytest.fixture(scope="session")
def packs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    for name, frames in (("still", 1), ("clips", 3)):
        config = PackConfig(count=6, frames=frames, size=64, seed=3)
        prepare(list_sources([photos], [], config.size), config, folder / name, workers=1)
    return folder


@pytest.fixture
def stills(packs: Path) -> Pack:
    return Pack(packs / "still")


@pytest.fixture
def clips(packs: Path) -> Pack:
    return Pack(packs / "clips")


@pytest.fixture
def tiny_pipeline() -> DLoRALPipeline:
    return build_pipeline(CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4))
