"""Clips drawn as they are needed."""

from pathlib import Path

import cv2
import numpy as np
import torch

from dloral.data.samples import source_of
from dloral.data.sources import find_sources
from dloral.data.spec import ClipSpec
from dloral.data.streams import draw_clips


def test_flow_of_film_beside_photographs_is_unknown_whatever_is_drawn_with_it(
    photos: Path, tmp_path: Path
) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (4, 96, 96, 3), dtype=np.uint8)
    (tmp_path / "film").mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / "film" / f"{number:04}.png"), frames[0] // 2 + frame // 8)
    places = (f"photos:{photos}", f"videos:{tmp_path / 'film'}")
    spec = ClipSpec(places, frames=2, size=32)
    sources = find_sources(spec)
    for index in range(6):
        flow = draw_clips(sources, spec, range(index, index + 1)).flow
        assert flow is not None
        known = source_of(sources, spec, index)[0] == "photo"
        assert torch.isfinite(flow).all() if known else torch.isnan(flow).all()
    film = ClipSpec(places[1:], frames=2, size=32)
    assert draw_clips(find_sources(film), film, range(2)).flow is None
