"""Held-out figures: tables from packs, on a tiny model."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dloral.errors import OptionError
from dloral.evaluation import held_out
from dloral.evaluation.held_out import Figures, together
from dloral.models.adapters import add_adapters
from dloral.training.compact import CompactSizes, build_pipeline

SIZES = CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4)


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """Two packs of two clips of two frames of 64 x 64: smooth noise, and every fourth pixel."""
    for seed, name in enumerate(("heldout_clips", "heldout_city")):
        folder = tmp_path / "packs" / name
        folder.mkdir(parents=True)
        coarse = np.random.default_rng(seed).integers(60, 200, (2, 2, 3, 16, 16), np.uint8)
        np.save(folder / "hq.npy", coarse.repeat(4, -1).repeat(4, -2))
        np.save(folder / "lq.npy", coarse)
        (folder / "manifest.json").write_text("{}")
    return tmp_path / "packs"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pipe = build_pipeline(SIZES)
    add_adapters(pipe.unet, 2)
    pipe.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_every_pack_and_all_clips_together(
    packs: Path, model: Path, tmp_path: Path, monkeypatch, capsys
):
    torch.manual_seed(0)
    call = [
        *("held_out", "--packs", packs, "--model", model, "--device", "cpu"),
        *("--metrics", "psnr", "lpips_like", "-o", tmp_path / "figures.json"),
    ]
    monkeypatch.setattr("sys.argv", [str(part) for part in call])
    held_out.main()
    said = capsys.readouterr().out
    assert re.findall(r"^(.+) \((\d)\)$", said, re.M) == [
        ("Held-out clips, photographs in motion", "2"),
        ("Held-out clips, city", "2"),
        ("All clips", "4"),
    ]
    assert "All 4 clips\n" in said
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [len(figures[name]) for name in ("heldout_clips", "heldout_city")] == [2, 2]
    bicubic = [one["by_method"]["bicubic"]["psnr"] for found in figures.values() for one in found]
    assert f"| bicubic | {np.mean(bicubic):.2f} ± " in said
    assert set(figures["heldout_city"][0]["by_method"]) == {"bicubic", *held_out.SETTINGS}


def test_no_pack_is_one_line(tmp_path: Path, model: Path, monkeypatch):
    call = ["held_out", "--packs", str(tmp_path), "--model", str(model)]
    monkeypatch.setattr("sys.argv", call)
    with pytest.raises(OptionError, match="holds none of heldout_still"):
        held_out.main()


def test_intervals_and_shares_are_over_clips():
    found = [
        Figures(
            {
                "bicubic": {"psnr": 20.0 + k, "lpips_like": 0.2},
                "ours": {"psnr": 21.0 + k, "lpips_like": 0.15},
            },
            {"bicubic": 0.0, "ours": 0.25},
        )
        for k in range(4)
    ]
    last = together(found).splitlines()[-1]
    interval = 1.96 * np.std(range(4), ddof=1) / 2
    assert last.split(" | ")[1] == f"22.50 ± {interval:.2f}"
    assert "0.1500 ± 0.0000 (0.750)" in last
    assert last.endswith("0.25 |")
