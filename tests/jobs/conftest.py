"""A clip of three segments, a tiny model, and what an unbroken run makes of them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clips import options, save_tiny_model, short_segments, write_clip

from dloral import UpscaleOptions, load_pipeline, upscale_video
from dloral.pipeline import DLoRALPipeline


@pytest.fixture(scope="module", autouse=True)
def _short_segments() -> Iterator[None]:
    with short_segments():
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def loaded(model: Path) -> DLoRALPipeline:
    return load_pipeline(str(model), "cpu", "float32")


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames: two whole segments of 8 and one of 4; key frames at 0, 6, 12 and 18."""
    return write_clip(tmp_path_factory.mktemp("clip") / "long.mp4", 20, gop=6)


@pytest.fixture(scope="session")
def chosen(model: Path) -> UpscaleOptions:
    return options(model, scale=1, resume=True)


@pytest.fixture(scope="session")
def whole(
    long_clip: Path,
    chosen: UpscaleOptions,
    loaded: DLoRALPipeline,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The unbroken run's result, written without segments on the way."""
    target = tmp_path_factory.mktemp("whole") / "whole.mp4"
    with short_segments():
        return upscale_video(long_clip, target, replace(chosen, resume=False), pipe=loaded)
