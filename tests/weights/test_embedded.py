"""The model inside the package, on what it may be given."""

import numpy as np
import pytest
import torch

from dloral.data import odd
from dloral.data.odd import PATTERNS, charts
from dloral.frames.resize import resize_bicubic, shrink_for_flow
from dloral.weights.loading import load_pipeline

AWAY, LEAST, MOST = 0.08, -1.0, 2.0
"""Mean distance from the enlarged chart, least and most."""


@pytest.mark.parametrize("pattern", dict.fromkeys(PATTERNS), ids=lambda pattern: pattern.__name__)
@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_pictures_that_no_camera_takes_stay_pictures(
    scale: int, pattern, monkeypatch: pytest.MonkeyPatch
):
    """Charts, pure colours and noise: a decoder that had never seen such pictures answered with
    numbers of up to 1e8."""
    monkeypatch.setattr(odd, "PATTERNS", (pattern,))
    _, small, _ = charts(24, 32, np.random.default_rng(5), torch.device("cpu"))
    frames = resize_bicubic(small, 32 * scale, 32 * scale).clamp(0, 1)
    pipe = load_pipeline("compact", device="cpu", dtype="float32")
    latents, small_frames = pipe.encode(frames), shrink_for_flow(frames)
    retrieved, aligned = pipe.retrieve(latents, small_frames, latents[None], small_frames[None])
    for dials in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)):
        pipe.set_scales(*dials)
        found = pipe.decode(pipe.refine(aligned, retrieved, None), frames)
        assert (found - frames).abs().mean() < AWAY
        assert found.min() > LEAST
        assert found.max() < MOST
