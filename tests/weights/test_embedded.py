"""The model inside the package, on what it may be given."""

import numpy as np
import pytest
import torch

from dloral.data.odd import charts
from dloral.frames.resize import resize_bicubic, shrink_for_flow
from dloral.weights.loading import load_pipeline


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("dials", [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.5)])
@torch.no_grad()
def test_pictures_that_no_camera_takes_stay_pictures(scale: int, dials: tuple[float, float]):
    """Charts, pure colours and noise of single pixels: nothing grows without bounds, whatever the
    decoder draws there. A model that had never seen such pictures answered with 1e8."""
    pipe = load_pipeline("compact", device="cpu", dtype="float32")
    pipe.set_scales(*dials)
    _, small = charts(42, 32, np.random.default_rng(5), torch.device("cpu"))
    frames = resize_bicubic(small, 32 * scale, 32 * scale).clamp(0, 1)
    latents, small_frames = pipe.encode(frames), shrink_for_flow(frames)
    retrieved, aligned = pipe.retrieve(latents, small_frames, latents[None], small_frames[None])
    found = pipe.decode(pipe.refine(aligned, retrieved, None), frames)
    assert found.min() > -1.5
    assert found.max() < 2.5
    assert (found - frames).abs().mean() < 0.1
