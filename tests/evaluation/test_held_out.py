"""Held-out figures: tables from packs, on a tiny model."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dloral.errors import DLoRALError, InputError, OptionError, OutputError
from dloral.evaluation import held_out
from dloral.evaluation.held_out import Figures, together
from dloral.models.adapters import add_adapters
from dloral.training.fresh import CompactSizes, build_pipeline

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


def add_pack(packs: Path, name: str, hq: tuple[int, ...], lq: tuple[int, ...]) -> None:
    folder = packs / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, shape in (("hq", hq), ("lq", lq)):
        np.save(folder / f"{file}.npy", np.full(shape, 99, np.uint8))
    (folder / "manifest.json").write_text("{}")


def call_with(monkeypatch, packs: Path, *more: object) -> None:
    call = ["held_out", "--packs", packs, "--device", "cpu", "--metrics", "psnr", *more]
    monkeypatch.setattr("sys.argv", [str(part) for part in call])
    held_out.main()


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        (["-o", "none/figures.json"], OutputError, "none is not a directory"),
        (["--sheet", "none/sheet.png"], OutputError, "none is not a directory"),
        (["--sheet", "sheet.xyz"], OptionError, "sheet.xyz; give a name with .png"),
        (["--sheet", "sheet.png", "--sheet-rows", "0"], OptionError, "--sheet-rows is 0"),
        (["--sheet", "sheet.png", "--only", "heldout_city"], OptionError, "crops of heldout_still"),
        (["-o", "packs/heldout_still/hq.npy"], OptionError, "is read as a source"),
    ],
)
def test_outputs_that_cannot_be_are_said_before_the_measuring(
    packs: Path, tmp_path: Path, monkeypatch, more: list[str], kind: type[DLoRALError], said: str
):
    """No model is loaded: the one that is named is not there."""
    add_pack(packs, "heldout_still", (1, 1, 3, 64, 64), (1, 1, 3, 16, 16))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        call_with(monkeypatch, packs, "--model", "absent", *more)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("hq", "lq", "said"),
    [
        ((0, 2, 3, 64, 64), (0, 2, 3, 16, 16), "holds no clip"),
        ((1, 2, 3, 64, 64), (1, 2, 3, 32, 32), "4 times smaller"),
        ((1, 3, 64, 64), (1, 3, 16, 16), "4 times smaller"),
    ],
)
def test_packs_that_cannot_be_measured_are_one_line(
    packs: Path, monkeypatch, hq: tuple[int, ...], lq: tuple[int, ...], said: str
):
    add_pack(packs, "heldout_city", hq, lq)
    with pytest.raises(InputError) as caught:
        call_with(monkeypatch, packs, "--model", "absent")
    assert said in str(caught.value)
    assert "heldout_city" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_figures_are_written_where_the_sheet_fails(
    tmp_path: Path, model: Path, monkeypatch, capsys
):
    packs, figures = tmp_path / "stills", tmp_path / "figures.json"
    add_pack(packs, "heldout_still", (1, 1, 3, 64, 64), (1, 1, 3, 16, 16))
    more = ["--model", model, "-o", figures, "--sheet", tmp_path / "sheet.png"]
    call_with(monkeypatch, packs, *more)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (64 * (2 + len(held_out.SETTINGS)), 64 + 20)
    figures.unlink()

    def fail(rows):
        raise OutputError("no sheet")

    monkeypatch.setattr(held_out, "sheet", fail)
    with pytest.raises(OutputError, match="no sheet"):
        call_with(monkeypatch, packs, *more)
    assert len(json.loads(figures.read_text())["heldout_still"]) == 1
