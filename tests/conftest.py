"""Fixtures for all tests: a small generator with lively weights, and the reference checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dloral.models.adapters import add_adapters
from dloral.pipeline import DLoRALPipeline
from dloral.training.compact import CompactSizes, build_pipeline
from dloral.weights.convert import convert

REFERENCE = Path(__file__).parent / "data" / "dloral_tiny"

SMALL = CompactSizes(
    latent_channels=4,
    vae_width=8,
    encoder_blocks=1,
    decoder_blocks=1,
    unet_channels=(16, 16),
    flow_levels=2,
    flow_channels=(8, 8),
    retrieval_heads=2,
    retrieval_head_dim=8,
)


def make_lively(pipe: DLoRALPipeline, seed: int = 1) -> DLoRALPipeline:
    """Random weights where a fresh model has zeros, so that every part changes the result."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in (pipe.unet, pipe.vae, pipe.retrieval, pipe.flow):
            for parameter in part.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1, generator=generator)
    return pipe


@pytest.fixture
def make_pipeline() -> Callable[[], DLoRALPipeline]:
    """Builds the small compact pipeline with both LoRAs; every call gives the same weights."""

    def make() -> DLoRALPipeline:
        pipe = build_pipeline(SMALL)
        add_adapters(pipe.unet, {"consistency": 2, "detail": 3})
        make_lively(pipe)
        for part in (pipe.vae, pipe.unet, pipe.flow, pipe.retrieval):
            part.eval()
        return pipe

    return make


@pytest.fixture
def pipe(make_pipeline: Callable[[], DLoRALPipeline]) -> DLoRALPipeline:
    """The small compact pipeline with both LoRAs."""
    return make_pipeline()


@pytest.fixture(scope="session")
def reference() -> Path:
    """The tiny checkpoint in the released format: model.pkl, sd_base, expected.safetensors."""
    return REFERENCE


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference checkpoint as the folder that ``dloral convert`` writes. Read only."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert(REFERENCE / "model.pkl", REFERENCE / "sd_base", folder)
    return folder
