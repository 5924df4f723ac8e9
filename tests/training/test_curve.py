"""Curves of the trainer's logs and of the live recipe's."""

import json
from pathlib import Path

import pytest
from PIL import Image

from dloral.errors import InputError

pytest.importorskip("matplotlib", reason="requirements-metrics.txt brings matplotlib")
from dloral.training.curve import draw, read_log


def run_of(folder: Path, *entries: dict) -> Path:
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def test_a_step_logged_twice_counts_as_it_was_last(tmp_path: Path):
    run = run_of(
        tmp_path / "run",
        {"step": 10, "seconds": 1.0, "l2": 0.5, "held_out": {"psnr_gain 1/0": 0.1}},
        {"step": 20, "l2": 0.4},
        {"step": 10, "l2": 0.3},
    )
    assert read_log(run) == {
        "training losses": {"l2": [(10, 0.3), (20, 0.4)]},
        "held out: psnr_gain": {"1/0": [(10, 0.1)]},
    }


def test_phases_have_panels_of_their_own(tmp_path: Path):
    run = run_of(
        tmp_path / "live",
        {"seconds": 18.4, "photographs": 48},
        {"seconds": 20, "phase": "base", "step": 1, "restored": 2.0},
        {"seconds": 21, "phase": "enhancement 0", "step": 1, "grid": 0.5},
    )
    assert read_log(run) == {
        "base": {"restored": [(1, 2.0)]},
        "enhancement 0": {"grid": [(1, 0.5)]},
    }
    draw([run, run], tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 400


@pytest.mark.parametrize("text", ["", "no json", "[1]", '{"seconds": 1}'])
def test_a_folder_without_curves_is_one_line(tmp_path: Path, text: str):
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"log\.jsonl"):
        draw([tmp_path], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
