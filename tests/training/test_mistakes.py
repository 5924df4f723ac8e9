"""A person's mistakes with ``dloral train`` and ``dloral data list``: one line each."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from dloral.cli import main
from dloral.training.checkpoints import CHECKPOINT
from dloral.training.config import with_changes
from dloral.training.recipes import TINY


def one_line(capfd: pytest.CaptureFixture[str]) -> str:
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("dloral: ")
    return line


def test_a_folder_with_nothing_usable_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "notes.png").write_text("no picture")
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((20, 20, 3), np.uint8))
    for command in (["data", "list", "tiny"], ["train", "tiny", "--output", str(tmp_path / "run")]):
        assert main([*command, "--data", f"photos:{tmp_path}"]) == 1
        line = one_line(capfd)
        assert str(tmp_path) in line
        assert "2 left out" in line
    assert not (tmp_path / "run" / CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["nothing"], 2, "unknown configuration 'nothing'; choose from compact-cpu, compact-gpu, "),
        (["tiny", "--data", "pictures:here"], 2, "KIND:PATH"),
        (["tiny", "--data", "photos:/no/such/folder"], 1, "does not exist"),
        (["tiny", "--set", "loop.speed=3"], 2, "is not a setting"),
        (["tiny", "--set", "loop.steps"], 2, "KEY=VALUE"),
        (["tiny", "--set", "loop.steps=many"], 2, "whole number"),
        (["tiny", "--set", "algorithm.schedule=fast"], 2, "choose from"),
        (["tiny", "--steps", "0"], 2, "1 or more"),
        (["tiny", "--set", "loop.learning_rate=fast"], 2, "loop.learning_rate is 'fast'"),
        (["tiny", "--set", "loop.learning_rate=-1"], 2, "learning_rate is -1"),
        (["tiny", "--set", "loop.betas=(0.9,)"], 2, "loop.betas is '(0.9,)'; give 2 numbers"),
        (["tiny", "--set", "loop.betas=(0.9,1)"], 2, "betas is (0.9, 1)"),
        (["tiny", "--set", "loop.seed=-1"], 2, "seed is -1"),
        (["tiny", "--set", "loop.seed=True"], 2, "loop.seed is 'True'; give a whole number"),
        (["tiny", "--set", "loop.warmup_steps=-1"], 2, "warmup_steps is -1"),
        (["tiny", "--set", "model.fresh=no"], 2, "model.fresh is 'no'; give True or False"),
        (
            ["tiny", "--set", "data.consistency.photo_reductions=2.0"],
            2,
            "data.consistency.photo_reductions is '2.0'; give several numbers",
        ),
        (["tiny", "--set", "data.consistency.photo_reductions=()"], 2, "photo_reductions is ()"),
        (["tiny", "--set", "data.consistency.places=photos:DIR"], 2, "places is 'photos:DIR'"),
        (["tiny", "--set", "data.consistency.video_share=half"], 2, "a number or None"),
        (["tiny", "--set", "data.consistency.video_spacing=0"], 2, "video_spacing is 0"),
        (["tiny", "--set", "data.held_out_clips=0"], 2, "held_out_clips is 0"),
        (["tiny", "--set", "data.held_out=photos:DIR"], 2, "data.held_out is 'photos:DIR'"),
        (["tiny", "--set", "algorithm.outputs=1"], 2, "outputs is 1, but the loss 'flow'"),
        (["tiny", "--set", "algorithm.crop=30"], 2, "crop is 30"),
        (["tiny", "--set", "loop.mixed_precision=fp16"], 2, "needs a GPU"),
        (["tiny", "--set", "loop.mixed_precision=half"], 2, "choose from"),
        (["tiny", "--set", "model.start=nobody"], 1, "unknown"),
        (["sd21", "--set", "model.start=sd21:/no/such/folder", "model.flow=/no"], 1, "not exist"),
        (["sd21", "--set", "model.start=sd21:/no/such/folder"], 2, "flow net"),
    ],
)
def test_a_wrong_call_is_one_line(
    arguments: list[str],
    status: int,
    says: str,
    photos: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    given = [*arguments, "--output", str(tmp_path / "run")]
    if "--data" not in arguments:
        given += ["--data", f"photos:{photos}"]
    assert main(["train", *given]) == status
    assert says in one_line(capfd)


@pytest.mark.parametrize("below", [".", "below"])
def test_a_file_in_the_place_of_the_run_is_one_line(
    below: str, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "run").write_text("mine")
    place = ["--data", f"photos:{photos}", "--output", str(tmp_path / "run" / below)]
    assert main(["train", "tiny", *place]) == 1
    assert str(tmp_path / "run") in one_line(capfd)
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("of", ["--data", "--held-out"])
@pytest.mark.parametrize("broken", ["absent", "still", "no flow", "half"])
def test_a_pack_that_does_not_serve_is_one_line(
    broken: str,
    of: str,
    photos: Path,
    packs: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    pack = tmp_path / "pack"
    if broken != "absent":
        shutil.copytree(packs / ("still" if broken == "still" else "clips"), pack)
    if broken == "no flow":
        (pack / "flow.npy").unlink()
    if broken == "half":
        (pack / "flow.npy").write_bytes((pack / "flow.npy").read_bytes()[:500])
    places = [] if of == "--data" else ["--data", f"photos:{photos}"]
    for command in (["data", "list", "tiny"], ["train", "tiny", "--output", str(tmp_path / "run")]):
        assert main([*command, *places, of, f"pack:{pack}"]) == 1
        assert str(pack) in one_line(capfd)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("algorithm.window=3", "has clips of 3 frames, and 5 are needed"),
        ("algorithm.crop=72", "has pictures of 64 pixels a side, smaller than a crop of 72"),
    ],
)
def test_a_pack_too_small_for_the_settings_is_one_line(
    setting: str, says: str, packs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    given = ["--data", f"pack:{packs / 'clips'}", "--set", setting]
    for command in (["data", "list", "tiny"], ["train", "tiny", "--output", str(tmp_path / "run")]):
        assert main([*command, *given]) == 1
        assert says in one_line(capfd)


def test_data_says_what_a_pack_holds(packs: Path, capfd: pytest.CaptureFixture[str]):
    assert main(["data", "list", "tiny", "--data", f"pack:{packs / 'clips'}"]) == 0
    assert "both stages: a pack of 6 clips of 3 frames, 64x64 pixels" in capfd.readouterr().out


def test_a_setting_keeps_its_type():
    """A list is a tuple, a whole number is a number, and text may look like a number."""
    changes = ("data.consistency.photo_reductions=[1.0]", "loop.learning_rate=1", "model.flow=2024")
    config = with_changes(TINY, (*changes, "data.consistency.video_share=None"))
    assert config.data.consistency.photo_reductions == (1.0,)
    assert config.loop.learning_rate == 1
    assert config.model.flow == "2024"


def test_a_configuration_file_that_is_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    files = {
        "empty.py": ("", "defines no"),
        "raises.py": ("1 / 0", "ZeroDivisionError"),
        "wrong.py": (
            "from dloral.training.recipes import *\nconfig = LoopConfig(steps=0)",
            "steps is 0",
        ),
    }
    for name, (text, says) in files.items():
        (tmp_path / name).write_text(text)
        assert main(["train", str(tmp_path / name), "--output", str(tmp_path / "run")]) == 2
        assert says in one_line(capfd)


def test_data_says_what_is_found_and_what_is_left_out(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    for path in photos.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "notes.png").write_text("no picture")
    assert main(["data", "list", "tiny", "--data", f"photos:{tmp_path}"]) == 0
    said = capfd.readouterr().out
    assert "both stages: 2 photographs, 0 videos with 0 possible clip starts, 1 left out" in said
    assert "notes.png: not a readable picture" in said
