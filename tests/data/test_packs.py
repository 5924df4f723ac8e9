"""Packs: what is found, what is left out, the same with any number of workers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dloral.data.pack_maker import make_pack
from dloral.data.packs import Pack
from dloral.data.sources import find_sources
from dloral.data.spec import ClipSpec
from dloral.errors import InputError, OptionError, OutputError
from dloral.frames.resize import resize_bicubic
from dloral.models.flow import warp


def stills_of(*folders: Path, **settings: Any) -> ClipSpec:
    return ClipSpec(tuple(f"photos:{folder}" for folder in folders), size=64, **settings)


def test_one_worker_or_two_make_the_same_pack(photos: Path, tmp_path: Path):
    spec = stills_of(photos, frames=2, seed=1)
    for workers in (1, 2):
        make_pack(find_sources(spec), spec, 5, tmp_path / str(workers), workers)
    for name in ("hq", "lq", "flow"):
        one, two = (np.load(tmp_path / f"{n}/{name}.npy") for n in (1, 2))
        assert np.array_equal(one, two), name
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["1", "2"]


def test_another_seed_makes_another_pack(photos: Path, tmp_path: Path):
    for seed in (1, 2):
        spec = stills_of(photos, seed=seed)
        make_pack(find_sources(spec), spec, 2, tmp_path / str(seed))
    assert not np.array_equal(*(np.load(tmp_path / f"{seed}/hq.npy") for seed in (1, 2)))


def test_an_existing_pack_is_not_touched(photos: Path, tmp_path: Path):
    with pytest.raises(OutputError, match="exists already"):
        make_pack(find_sources(stills_of(photos)), stills_of(photos), 1, tmp_path)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 1, "workers": 0}])
def test_a_pack_has_clips_and_someone_who_makes_it(wrong: dict, photos: Path, tmp_path: Path):
    with pytest.raises(OptionError, match=f"{list(wrong)[-1]} is 0"):
        make_pack(
            find_sources(stills_of(photos)), stills_of(photos), folder=tmp_path / "p", **wrong
        )


def test_the_manifest_names_the_sources(packs: Path):
    manifest = json.loads((packs / "clips" / "manifest.json").read_text())
    assert sorted(manifest["sources"]) == ["0.png", "1.png"]
    assert manifest["config"]["seed"] == 3


def test_the_manifest_tells_sources_of_one_name_apart(tmp_path: Path):
    """By the path below the place, and by the place where that is not enough."""
    pictures = {"a/0.png": 1, "a/x/0.png": 2, "b/0.png": 3}
    for name, seed in pictures.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(tmp_path / name), np.random.default_rng(seed).integers(0, 255, (200, 200, 3))
        )
    spec = stills_of(tmp_path / "a", tmp_path / "b")
    make_pack(find_sources(spec), spec, 1, tmp_path / "pack")
    manifest = json.loads((tmp_path / "pack" / "manifest.json").read_text())
    assert manifest["sources"] == {
        named: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for named, name in {
            "0.png": "a/0.png",
            "x/0.png": "a/x/0.png",
            "b/0.png": "b/0.png",
        }.items()
    }


def test_a_crop_larger_than_the_pictures_is_one_line(clips: Pack):
    with pytest.raises(InputError, match="64 pixels a side, smaller than a crop of 72"):
        clips.draw_clips(np.random.default_rng(0), 1, 72)


def test_draws_are_crops_of_the_pack_on_the_latent_grid(clips: Pack):
    drawn, again = (clips.draw_clips(np.random.default_rng(0), 4, 32) for _ in range(2))
    assert drawn.hq_frames.shape == drawn.lq_frames.shape == (4, 3, 3, 32, 32)
    assert torch.equal(drawn.hq_frames, again.hq_frames)
    assert torch.equal(drawn.lq_frames, again.lq_frames)
    # degraded, yet the same pictures
    assert 0.001 < (drawn.hq_frames - drawn.lq_frames).abs().mean() < 0.2


def test_a_mirrored_clip_has_mirrored_flow(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    before = np.roll(noise, 8, axis=2)  # the current frame's content lies 8 pixels to the right
    np.save(tmp_path / "hq.npy", np.stack([before, noise])[None])
    np.save(tmp_path / "lq.npy", np.stack([before, noise])[None, :, :, ::4, ::4])
    flow = np.zeros((1, 1, 2, 8, 8), np.float16)
    flow[:, :, 0] = 1  # in cells
    np.save(tmp_path / "flow.npy", flow)
    directions = set()
    for seed in range(8):
        batch = Pack(tmp_path).draw_clips(np.random.default_rng(seed), 1, 48)
        moved = warp(batch.hq_frames[:, 0], batch.flow[:, 0])
        error = (batch.hq_frames[:, 1] - moved).abs()[..., 16:32]
        assert error.max() < 1e-4
        directions.add(batch.flow[0, 0, 0, 0, 0].item())
    assert directions == {-8.0, 8.0}


@pytest.mark.parametrize("crop", [64, 32])
def test_small_frames_are_those_that_were_enlarged(packs: Path, crop: int):
    drawn = Pack(packs / "clips").draw_clips(np.random.default_rng(1), 6, crop)
    assert drawn.small_frames is not None
    assert drawn.small_frames.shape[-2:] == (crop // 4, crop // 4)
    enlarged = resize_bicubic(drawn.small_frames.flatten(0, 1), crop, crop)
    inner = (..., slice(8, -8), slice(8, -8))  # nearer to the border a crop lacks what is beside it
    assert torch.allclose(enlarged[inner], drawn.lq_frames.flatten(0, 1)[inner], atol=1e-5)
