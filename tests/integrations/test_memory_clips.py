"""Clips in memory are restored as files are."""

import pytest
import torch

from dloral import UpscaleOptions, load_pipeline
from dloral.frames.resize import BICUBICS, resize_bicubic
from dloral.integrations.memory_clips import restored_frames


@pytest.mark.parametrize("kernel", BICUBICS)
def test_frames_are_enlarged_by_the_bicubic_that_is_asked_for(kernel: str) -> None:
    frames = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    options = UpscaleOptions("bicubic", scale=2, bicubic=kernel)
    restored = torch.stack([*restored_frames(iter(frames), load_pipeline("bicubic"), options)])
    assert torch.equal(restored, resize_bicubic(frames, 16, 24, kernel))
