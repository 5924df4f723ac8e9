"""Studies from their trainings to their tables, on random weights and a few steps."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dloral
from dloral.cli import main
from dloral.data.packs import Pack
from dloral.evaluation import study_report
from dloral.evaluation.studies import STUDIES
from dloral.evaluation.study_measuring import HeldOutClips
from dloral.models.srvgg import SRVGG
from dloral.training.recipes import STUDY
from dloral.video.images import encode_image


def pack_of(pictures: list[torch.Tensor], folder: Path, frames: int) -> Path:
    """A pack of moving crops (2,T,3,64,64), halved four times over for the low quality."""
    clips = [
        torch.stack([p[:, 20 : 20 + 64, 30 + i : 94 + i] for i in range(frames)])
        for p in pictures[:2]
    ]
    hq = torch.stack(clips)
    lq = torch.nn.functional.avg_pool2d(hq.flatten(0, 1), 4).unflatten(0, hq.shape[:2])
    folder.mkdir()
    np.save(folder / "hq.npy", (255 * hq).round().byte().numpy())
    np.save(folder / "lq.npy", (255 * lq).round().byte().numpy())
    np.save(folder / "flow.npy", np.zeros((2, frames - 1, 2, 8, 8), np.float16))
    assert Pack(folder).size == 64
    return folder


def call(study: str, packs: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    return [
        *("study", "train", study, "--recipe", "tiny", "--data", f"pack:{packs[0]}"),
        *("--held-out", str(packs[1]), "--steps", "4", "--seeds", "1", "-o", str(out)),
        *("--set", "algorithm.crop=32", "--metrics", "psnr", "warping_error", *more),
    ]


@pytest.fixture
def packs(pictures: list[torch.Tensor], tmp_path: Path) -> tuple[Path, Path]:
    return pack_of(pictures, tmp_path / "train", 8), pack_of(pictures[2:], tmp_path / "held", 3)


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_runs_to_its_table(study: str, packs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(call(study, packs, out)) == 0
    found = json.loads((out / "study.json").read_text())
    assert [run["variant"] for run in found["runs"]] == [v.name for v in STUDIES[study].variants]
    text = (out / "README.md").read_text()
    for variant in STUDIES[study].variants:
        assert f"| {variant.title} |" in text
    assert "one run each: no verdict" in text
    assert (out / "curves.png").is_file()
    assert (out / "sheet.jpg").is_file()
    stages = {run["variant"]: [stage for stage, _ in run["stages"]] for run in found["runs"]}
    if study == "strategies":
        assert stages["joint"] == ["joint"]
        assert stages["dual"] == ["consistency", "enhancement"] * 2
        assert "(b) one space, alternating swings at least 2 times as far as (c)" in text
    if study == "branches":
        assert "66.6174" in text
        assert [run["steps"] for run in found["runs"]] == [2, 2, 4]
        assert stages["C-only"] + stages["D-only"] == ["consistency", "enhancement"]
    if study == "order":
        assert stages["enhancement-first"] == ["enhancement", "consistency"] * 2
    finals = [run["final"] for run in found["runs"]]
    assert all(final != finals[0] for final in finals[1:]), "variants must differ in something"
    for run in found["runs"]:  # the model that was kept is what was measured along the way
        last = {name: run["points"][-1][name] for name in run["final"]}
        assert run["final"] == pytest.approx(last, rel=1e-3)
    assert found["truth"]["0"]["psnr"] == 100


def test_windows_are_varied_at_inference_too(packs: tuple[Path, Path], tmp_path: Path) -> None:
    """In a model whose retrieval has learned, each window restores otherwise; 0 learns none."""
    out = tmp_path / "out"
    assert main(call("windows", packs, out, "--set", "loop.learning_rate=0.1")) == 0
    runs = {run["variant"]: run for run in json.loads((out / "study.json").read_text())["runs"]}
    for name, run in runs.items():
        assert list(run["windows"]) == ["0", "1", "3", "5"]
        assert run["windows"][name] == run["clips"]
    assert runs["1"]["windows"]["0"] != runs["1"]["windows"]["1"]
    assert runs["1"]["windows"]["3"] != runs["1"]["windows"]["1"]
    text = (out / "README.md").read_text()
    assert "restored with 5" in text
    assert "| trained with window 0 (without CFR) |" in text


def start(arguments: list[str], folder: Path) -> subprocess.Popen:
    """A process of its own, that can be killed."""
    root = Path(dloral.__file__).parents[1]
    with (folder / "stderr").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "dloral", *arguments],
            stderr=errors,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(root)},
        )


def wait_for(log: Path, steps: int, process: subprocess.Popen) -> None:
    for _ in range(2400):
        if log.is_file() and len(log.read_text().splitlines()) >= steps:
            return
        assert process.poll() is None, "ended before it was stopped"
        time.sleep(0.05)
    raise AssertionError("the study did not get going")


def test_a_study_that_is_stopped_and_killed_goes_on(
    packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM within the first run, SIGKILL within the second; the same call each time."""
    first, second = (tmp_path / "out" / "runs" / f"{v.name}-0" for v in STUDIES["order"].variants)
    whole, stopped = (
        call("order", packs, tmp_path / "whole"),
        call("order", packs, tmp_path / "out"),
    )
    for arguments in (whole, stopped):
        arguments[arguments.index("--steps") + 1] = "64"
    assert main(whole) == 0
    for run, kind in ((first, signal.SIGTERM), (second, signal.SIGKILL)):
        process = start(stopped, tmp_path)
        wait_for(run / "log.jsonl", 4, process)
        process.send_signal(kind)
        process.wait(120)
        assert not (run / "result.json").is_file()
    assert "killed" not in (tmp_path / "stderr").read_text()
    assert (first / "result.json").is_file()
    capsys.readouterr()
    assert main(["study", "report", str(tmp_path / "out")]) == 0
    assert "**1 of 2 runs**" in capsys.readouterr().out
    before = (first / "log.jsonl").stat().st_mtime_ns
    assert main(stopped) == 0
    assert (first / "log.jsonl").stat().st_mtime_ns == before, "a finished run is not touched"
    for name in ("points", "final", "clips"):
        expected, found = (
            [run[name] for run in json.loads((tmp_path / o / "study.json").read_text())["runs"]]
            for o in ("whole", "out")
        )
        assert found == expected, name


def test_a_folder_keeps_to_its_study(
    packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeds may be added; steps, settings and clips may not change, nor another folder be hit."""
    out = tmp_path / "out"
    arguments = call("order", packs, out)
    assert main(arguments) == 0
    assert main([*arguments, "--seed", "1"]) == 0
    found = json.loads((out / "study.json").read_text())
    assert [run["seed"] for run in found["runs"]] == [0, 0, 1, 1]
    assert "p |" in (out / "README.md").read_text()
    for change, said in (
        (("--steps", "8"), "a study of 4 steps a run"),
        (("--set", "algorithm.crop=64"), "algorithm.crop was 32"),
        (("--set", "algorithm.crop=32", "loop.ema=0.5"), "loop.ema was"),
        (("--held-out", str(packs[0])), "held_out was 'held"),
        (("--metrics", "psnr"), "metrics was"),
    ):
        assert main([*arguments, *change]) == 2
        assert said.replace("'", "") in capsys.readouterr().err
    assert main(call("order", packs, tmp_path)) == 2
    assert "is not empty" in capsys.readouterr().err
    (out / "plan.json").write_text('{"steps": 4}')
    assert main(arguments) == 2
    assert "another version" in capsys.readouterr().err


def test_time_is_told_and_nothing_kept(
    packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = call("branches", packs, tmp_path / "out")
    place = arguments.index("-o")
    del arguments[place : place + 2]
    arguments[1] = "time"
    arguments[arguments.index("--seeds") + 1] = "5"
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "15 runs: about" in out
    assert "C-LoRA only" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held", "train"]
    arguments[arguments.index("--steps") : arguments.index("--steps") + 2] = ["--budget", "600"]
    assert main(arguments) == 0
    assert "15 runs: about" in capsys.readouterr().out
    arguments[arguments.index("--budget") + 1] = "0.001"
    assert main(arguments) == 2
    assert "--budget is 0.001, and 5 runs of each variant take more" in capsys.readouterr().err


def test_a_first_seed_below_zero_is_refused(
    packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before anything is timed or kept."""
    assert main(call("order", packs, tmp_path / "out", "--seed", "-1")) == 2
    err = capsys.readouterr().err
    assert err.startswith("dloral: --seed is -1; give a whole number from 0")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [0, 2])
def test_packs_that_cannot_be_measured_are_refused(
    count: int,
    packs: tuple[Path, Path],
    pictures: list[torch.Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One without clips; one of single frames, which have no warping error."""
    held = pack_of(pictures, tmp_path / "stills", 1)
    for name in ("hq", "lq"):
        np.save(held / f"{name}.npy", np.load(held / f"{name}.npy")[:count])
    assert main(call("order", (packs[0], held), tmp_path / "out")) == 1
    err = capsys.readouterr().err
    assert f"{held} " + ("has clips of 1 frame" if count else "is an empty pack") in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    if count:
        assert HeldOutClips(held, ["psnr"]).num_frames == 1


def test_what_draws_curves_is_asked_for_before_hours_of_training(
    packs: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(call("order", packs, tmp_path / "out")) == 1
    err = capsys.readouterr().err
    assert "the figure of curves needs the package matplotlib" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_report_that_fails_does_not_end_the_study(
    packs: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first one; the next is written, without curves where there are none."""
    write, tries = study_report.write_study, []

    def failing(*arguments: Any) -> Path:
        tries.append(arguments)
        if len(tries) == 1:
            raise OSError("No space left on device")
        return write(*arguments)

    monkeypatch.setattr(study_report, "write_study", failing)
    arguments = call("order", packs, tmp_path / "out")
    place = arguments.index("--metrics")
    arguments[place + 1 : place + 3] = ["sharpness"]
    assert main(arguments) == 0
    assert "report after this run could not be made" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "study.json").read_text())
    assert len(found["runs"]) == 2
    assert "curves.png" not in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "curves.png").exists()


def test_the_recipe_of_studies_asks_a_teacher(
    packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its losses on the tiny model, from a pack, with a teacher's file."""
    assert STUDY.algorithm.crop >= 128
    weights = STUDY.algorithm.schedule.enhancement_weights
    assert {"teacher_charbonnier", "teacher_gradient", "detail"} <= weights.keys()
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from dloral.training.recipes import *\n"
        "config = replace(STUDY, model=TINY.model, loop=TINY.loop,"
        " algorithm=replace(STUDY.algorithm, crop=32))\n"
    )
    arguments = call("order", packs, tmp_path / "out")
    arguments[arguments.index("tiny")] = str(recipe)
    assert main(arguments) == 2
    assert "teacher" in capsys.readouterr().err
    file = tmp_path / "teacher.safetensors"
    save_file(SRVGG(8, 2).state_dict(), file)
    assert main([*arguments, "--teacher", str(file)]) == 0
    log = (tmp_path / "out" / "runs" / "consistency-first-0" / "log.jsonl").read_text()
    assert "teacher_gradient" in log


def test_a_trained_models_switches(
    converted: Path, pictures: list[torch.Tensor], tmp_path: Path
) -> None:
    """Tables A1 and A3 on the tiny checkpoint in the released format."""
    clip = tmp_path / "data" / "clip"
    clip.mkdir(parents=True)
    for index in range(2):
        small = pictures[0][:, :40, index : index + 48]
        (clip / f"{index}.png").write_bytes(encode_image(small, ".png"))
    for study in ("branches", "windows"):
        out = tmp_path / study
        arguments = ["--model", str(converted), "--data", str(tmp_path / "data"), "-o", str(out)]
        arguments += ["--dtype", "float32", "--metrics", "warping_error", "grid_level"]
        assert main(["study", "measure", study, *arguments]) == 0
        text = (out / "README.md").read_text()
        assert "66.6174" in text
        assert "160x" in text or "192x160" in text
        finals = [run["final"] for run in json.loads((out / "study.json").read_text())["runs"]]
        assert finals[0] != finals[1]
    arguments[-4:] = []
    wrong = [
        "study",
        "measure",
        "order",
        "--model",
        str(converted),
        "--data",
        str(tmp_path / "data"),
    ]
    assert main([*wrong, "-o", str(tmp_path / "o")]) == 2


def test_a_trained_models_switches_on_a_pack(
    converted: Path, packs: tuple[Path, Path], tmp_path: Path
) -> None:
    """A pack has its ground truth, and says which clips are of one source."""
    held_out, out = packs[1], tmp_path / "out"
    arguments = ["--model", str(converted), "--data", str(held_out), "-o", str(out)]
    arguments += ["--dtype", "float32", "--metrics", "psnr", "--frames", "1"]
    (held_out / "manifest.json").write_text(json.dumps({"clips": ["one.jpg", "one.jpg"]}))
    assert main(["study", "measure", "branches", *arguments]) == 0
    found = json.loads((out / "study.json").read_text())
    assert set(found["sources"].values()) == {"one.jpg"}
    assert found["num_clips"] == len(found["sources"]) == 2
    assert all(run["final"]["psnr"] > 5 for run in found["runs"])
