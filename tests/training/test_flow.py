"""The flow net's phase."""

from pathlib import Path

import numpy as np
import torch

from dloral.data.clips import Clips, Draw
from dloral.training.fresh import build_pipeline
from dloral.training.phases.flow import FlowConfig, FlowPhase, moved_pairs
from tests.training.conftest import tiny_chain


class NoClips:
    def draw(self, draw: Draw) -> Clips:
        raise NotImplementedError


def test_a_coarsest_level_of_one_cell_is_taught(photos: Path) -> None:
    sizes = tiny_chain(photos).sizes
    cells = 2 ** (sizes.flow_levels - 1)
    flow = FlowConfig(crop=8 * cells)
    phase = FlowPhase(build_pipeline(sizes), NoClips(), flow, steps=4)
    stills = torch.rand(2, 3, 2 * cells, 2 * cells)
    pairs = moved_pairs(stills, flow.most_shift, np.random.default_rng(0))
    assert pairs.flow.shape == (2, 2, cells, cells)
    assert torch.isfinite(phase._taught(pairs))
