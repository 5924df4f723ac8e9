"""Studies from their trainings to their tables, on random weights and a few steps."""

import json
from pathlib import Path

import pytest
import torch

from dloral.cli import main
from dloral.data.packs import Pack
from dloral.evaluation.studies import STUDIES, configured
from dloral.evaluation.study_report import verdicts
from dloral.training.recipes import COMPACT
from dloral.video.images import encode_image


def pack_of(pictures: list[torch.Tensor], folder: Path, frames: int) -> Path:
    """A pack of moving crops (2,T,3,64,64), halved four times over for the low quality."""
    import numpy as np

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
        *("--metrics", "psnr", "warping_error", *more),
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
    if study == "branches":
        assert "66.6174" in text
    assert (out / "curves.png").is_file()
    assert (out / "sheet.jpg").is_file()
    stages = {run["variant"]: [stage for stage, _ in run["stages"]] for run in found["runs"]}
    if study == "strategies":
        assert stages["joint"] == ["joint"]
        assert stages["dual"] == ["consistency", "enhancement"] * 2
    if study == "order":
        assert stages["enhancement-first"] == ["enhancement", "consistency"] * 2
    finals = [run["final"] for run in found["runs"]]
    assert all(final != finals[0] for final in finals[1:]), "variants must differ in something"


def test_a_stopped_study_goes_on(
    packs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(call("order", packs, out)) == 0
    whole = json.loads((out / "study.json").read_text())
    kept, again = (out / "runs" / f"{v.name}-0" for v in STUDIES["order"].variants)
    before = (kept / "log.jsonl").stat().st_mtime_ns
    (again / "result.json").unlink()
    (out / "study.json").unlink()
    assert main(call("order", packs, out)) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*call("order", packs, out), "--resume"]) == 0
    assert (kept / "log.jsonl").stat().st_mtime_ns == before
    resumed = json.loads((out / "study.json").read_text())
    finals = [[run["final"] for run in found["runs"]] for found in (whole, resumed)]
    assert finals[0] == finals[1]
    other = [*call("order", packs, out), "--resume"]
    other[other.index("--steps") + 1] = "5"
    assert main(other) == 2


def test_variants_differ_in_their_setting_alone() -> None:
    for study in STUDIES.values():
        made = [configured(COMPACT, v, 400, 0).algorithm for v in study.variants]
        for variant, one in zip(study.variants, made, strict=True):
            for name, value in variant.changes.items():
                assert getattr(one, name) == value
            same = set(vars(one)) - set(variant.changes)
            assert all(getattr(one, name) == getattr(made[0], name) for name in same)
        assert made[0].schedule.consistency_steps == 100


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


def test_verdicts_say_what_the_spread_allows() -> None:
    study = STUDIES["order"]

    def found(first: list[float], second: list[float]) -> dict[str, object]:
        runs = [
            {"variant": name, "final": {"warping_error": value}}
            for name, values in (("enhancement-first", first), ("consistency-first", second))
            for value in values
        ]
        return {"metrics": ["warping_error"], "runs": runs}

    assert "seen." in verdicts(study, found([1.0, 1.1], [2.0, 2.1]))[0]
    assert "opposite" in verdicts(study, found([2.0, 2.1], [1.0, 1.1]))[0]
    assert "spread" in verdicts(study, found([1.0, 3.0], [1.5, 2.9]))[0]
    assert "no difference" in verdicts(study, found([1.0], [1.0]))[0]
