"""A tiny pipeline to train."""

import pytest

from dloral.pipeline import DLoRALPipeline
from dloral.training.fresh import CompactSizes, build_pipeline


@pytest.fixture
def tiny_pipeline() -> DLoRALPipeline:
    return build_pipeline(CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4))
