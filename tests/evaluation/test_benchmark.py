"""Benchmarks from a data set's folder to their page, on a tiny model and tiny clips."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dloral.cli import main
from dloral.errors import WeightsError
from dloral.evaluation.benchmark import Benchmark
from dloral.evaluation.benchmark_clips import ready_clip
from dloral.evaluation.benchmark_report import difference_cell, differences
from dloral.evaluation.catalogue import MetricSpec
from dloral.evaluation.datasets import DataClip, DataSet, FileFrames
from dloral.evaluation.fidelity import psnr
from dloral.evaluation.restore import Scales, baseline_restorer, model_restorer
from dloral.evaluation.statistics import paired_difference, paired_ratio
from dloral.frames.resize import resize_bicubic
from dloral.pipeline import DLoRALPipeline
from dloral.video.images import encode_image

METRICS = ("psnr", "sharpness", "warping_error")


def write_clip(folder: Path, frames: torch.Tensor) -> torch.Tensor:
    """Frames (T,3,H,W) as numbered PNG files; what they hold, of 8 bits."""
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        (folder / f"{index:04}.png").write_bytes(encode_image(frame, ".png"))
    return (255 * frames).round() / 255


def moving(picture: torch.Tensor, count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.stack([picture[:, 20 : 20 + side, 30 + i : 30 + i + side] for i in range(count)])


def quarter(frames: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(frames, 4)


@pytest.fixture
def model(pipe: DLoRALPipeline, tmp_path: Path) -> Path:
    pipe.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def pairs(pictures: list[torch.Tensor], tmp_path: Path) -> Path:
    """A data set of three pairs: GT and LQ, two of them of one source."""
    folder = tmp_path / "SET"
    for name, picture in zip(("car_1", "car_2", "tree_1"), pictures[::4], strict=True):
        write_clip(folder / "GT" / name, moving(picture))
        write_clip(folder / "LQ" / name, quarter(moving(picture)))
    return folder


def run(folder: Path, out: Path, *more: object) -> int:
    call = ["benchmark", folder, "-o", out, "--device", "cpu", "--metrics", *METRICS, *more]
    return main([str(word) for word in call])


def test_pairs_to_the_page(
    pairs: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    more = ("--models", model, "--settings", "0,1", "1,1", "--baselines", "span", "--sources")
    assert run(pairs, out, *more, r"(\w+)_") == 0
    found = json.loads((out / "benchmark.json").read_text())
    assert list(found["methods"]) == ["bicubic", "span", "tiny c=0 d=1", "tiny c=1 d=1"]
    clips = found["clips"]["bicubic"]
    values = {name: one["mean"]["psnr"] for name, one in clips.items()}
    by_source = [(values["car_1"] + values["car_2"]) / 2, values["tree_1"]]
    mean = found["methods"]["bicubic"]["mean"]["psnr"]
    assert (mean["mean"], mean["count"]) == (pytest.approx(np.mean(by_source)), 2)
    other = {name: one["mean"]["psnr"] for name, one in found["clips"]["span"].items()}
    gains = {name: other[name] - values[name] for name in values}
    difference = found["differences"]["bicubic"]["span"]["psnr"]
    expected = ((gains["car_1"] + gains["car_2"]) / 2 + gains["tree_1"]) / 2
    assert difference["mean"] == pytest.approx(expected)
    assert found["protocol"]["data set"] == "SET (GT with LQ)"
    assert "DIS, preset medium" in found["protocol"]["flow"]
    page = (out / "index.html").read_text()
    assert page.count("data:image/jpeg") == 3 * 5  # four methods and the truth of each clip
    assert "| tiny c=0 d=1 | " in capsys.readouterr().out


def test_figures_are_those_of_the_clip(pairs: Path, model: Path, tmp_path: Path) -> None:
    """The bicubic row's PSNR, computed from the files by hand."""
    assert run(pairs, tmp_path / "out", "--models", "--only", "tree_1") == 0
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    hq, lq = (
        torch.stack(list(FileFrames(pairs / part / "tree_1").open())) for part in ("GT", "LQ")
    )
    by_hand = [psnr(a, b) for a, b in zip(resize_bicubic(lq, 32, 32), hq, strict=True)]
    assert found["clips"]["bicubic"]["tree_1"]["frames"]["psnr"] == pytest.approx(by_hand)


def test_a_stopped_run_is_continued(
    pairs: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its fifth clip: what was measured is kept, the rest follows, as if in one run."""
    from dloral.evaluation import benchmark

    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(pairs, whole, "--models", model) == 0
    real, count = benchmark.restore_and_measure, 0

    def stopping(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(benchmark, "restore_and_measure", stopping)
    assert run(pairs, out, "--models", model) == 130
    assert not (out / "benchmark.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("clips/*/*.json")}
    assert len(kept) == 4
    assert run(pairs, out, "--models", model) == 0
    assert count == 7  # two more than the fifth, which was repeated
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    first, second = (
        json.loads((folder / "benchmark.json").read_text())["methods"]["tiny c=1 d=1"]["mean"]
        for folder in (whole, out)
    )
    assert first == second
    assert run(pairs, out, "--models", model, "--settings", "0,0") == 0  # a method is added
    assert count == 10
    monkeypatch.setattr(benchmark, "restore_and_measure", real)
    assert run(pairs, out, "--models", model, "--crop", "2") == 2  # another protocol is refused


def test_changed_weights_are_measured_again(pairs: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    only = ("--models", model, "--only", "tree_1")
    assert run(pairs, out, *only) == 0
    before = json.loads((out / "benchmark.json").read_text())["clips"]["tiny c=1 d=1"]["tree_1"]
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "decoder_adds_input": False}))
    assert run(pairs, out, *only) == 0
    after = json.loads((out / "benchmark.json").read_text())["clips"]["tiny c=1 d=1"]["tree_1"]
    assert before["mean"]["psnr"] != after["mean"]["psnr"]


def test_what_was_not_measured_or_has_changed_is_measured(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: list[torch.Tensor]
) -> None:
    """A measure whose package came later, and a clip whose frames were replaced."""
    out = tmp_path / "out"

    def missing(spec: MetricSpec, device: str) -> None:
        raise WeightsError("the package is not installed")

    with monkeypatch.context() as lacking:
        lacking.setattr("dloral.evaluation.fidelity.LPIPSLikeDistance", missing)
        assert run(pairs, out, "--models", "--metrics", "psnr", "lpips_like") == 1
    before = json.loads((out / "benchmark.json").read_text())["clips"]["bicubic"]
    assert not any("lpips_like" in one["mean"] for one in before.values())
    shutil.rmtree(pairs / "LQ" / "car_1")
    write_clip(pairs / "LQ" / "car_1", quarter(moving(pictures[5])))
    assert run(pairs, out, "--models", "--metrics", "psnr", "lpips_like") == 0
    after = json.loads((out / "benchmark.json").read_text())["clips"]["bicubic"]
    assert all("lpips_like" in one["mean"] for one in after.values())
    same = {name: after[name]["mean"]["psnr"] == before[name]["mean"]["psnr"] for name in after}
    assert same == {"car_1": False, "car_2": True, "tree_1": True}


@pytest.mark.parametrize("degradation", ["realesrgan", "bicubic"])
def test_truth_alone_is_degraded_once(
    degradation: str, pictures: list[torch.Tensor], tmp_path: Path
) -> None:
    """By seed and name: the same in another place, another by another seed; odd sizes are cut."""
    folder = tmp_path / "mine"
    write_clip(folder / "a", moving(pictures[0], side=42))
    clip = DataClip("a", "a", hq=FileFrames(folder / "a"))

    def low(out: str, seed: int) -> torch.Tensor:
        ready = ready_clip(clip, tmp_path / out, degradation, seed)
        assert ready.size == (40, 40)
        with ready.opened() as (lq_frames, hq_frames):
            assert [frame.shape for frame in hq_frames] == [(3, 40, 40)] * 2
            return torch.stack(list(lq_frames))

    first = low("one", 0)
    assert first.shape == (2, 3, 10, 10)
    assert torch.equal(first, low("one", 0))
    assert torch.equal(first, low("two", 0))
    assert torch.equal(first, low("three", 1)) == (degradation == "bicubic")
    assert run(folder, tmp_path / "out", "--models", "--degradation", degradation) == 0
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert "seed 0" in found["protocol"]["degradation"]
    assert len(list((tmp_path / "out" / "lq" / "a").glob("*.png"))) == 2


def test_low_quality_alone(
    pictures: list[torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VideoLQ: measures without a truth, and the paper's row."""
    write_clip(tmp_path / "VideoLQ" / "Input" / "000", quarter(moving(pictures[0], 3, 64)))
    call = ["benchmark", tmp_path / "VideoLQ", "-o", tmp_path / "out", "--device", "cpu"]
    metrics = ["--models", "--metrics", "warping_error", "flicker", "--frames", "2"]
    assert main([*map(str, call), *metrics]) == 0
    printed = capsys.readouterr().out
    assert "| DLoRAL, as the paper has it | 1.510 | – |" in printed
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    one = found["clips"]["bicubic"]["000"]
    assert (one["height"], one["width"], one["num_frames"]) == (64, 64, 2)
    assert main([*map(str, call), "--models", "--metrics", "psnr"]) == 2


def test_bad_clips_are_said_and_the_rest_measured(
    pairs: Path, pictures: list[torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = pictures[0]
    write_clip(pairs / "GT" / "alone", moving(picture))
    write_clip(pairs / "GT" / "longer", moving(picture, 3))
    write_clip(pairs / "LQ" / "longer", quarter(moving(picture)))
    write_clip(pairs / "GT" / "wider", moving(picture))
    write_clip(pairs / "LQ" / "wider", quarter(moving(picture, side=64))[..., :8])
    write_clip(pairs / "GT" / "broken", moving(picture))
    write_clip(pairs / "LQ" / "broken", quarter(moving(picture)))
    (pairs / "LQ" / "broken" / "0001.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert run(pairs, out, "--models", "--metrics", "psnr", "musiq", "vmaf") == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("dloral: not measured: alone: ")
    found = json.loads((out / "benchmark.json").read_text())
    assert set(found["clips"]["bicubic"]) == {"car_1", "car_2", "tree_1"}
    reasons = {name.split(",")[0]: why for name, why in found["failed"].items()}
    assert reasons.keys() == {"alone", "broken", "longer", "wider"}
    assert "3 frames" not in reasons["alone"]
    assert "2 frames and its ground truth 3" in reasons["longer"]
    assert "8x16 and its ground truth 32x32" in reasons["wider"]
    assert set(found["unavailable"]) == {"musiq", "vmaf"}
    assert "broken" in (out / "index.html").read_text()


def test_packs(packs: Path, tmp_path: Path) -> None:
    """Of six clips of two photographs: the manifest says which is of which."""
    assert run(packs / "clips", tmp_path / "out", "--models", "--only", "0", "2", "3") == 0
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    clips = found["clips"]["bicubic"]
    assert [one["source"] for one in clips.values()] == ["0.png", "0.png", "1.png"]
    assert clips["3"]["num_frames"] == 3
    assert found["methods"]["bicubic"]["mean"]["psnr"]["count"] == 2


def test_pairs_of_one_size(pictures: list[torch.Tensor], tmp_path: Path) -> None:
    """RealVSR: restored at the size that both have; a baseline's enlargement is reduced to it."""
    hq = write_clip(tmp_path / "RealVSR" / "GT" / "0", moving(pictures[0]))
    write_clip(tmp_path / "RealVSR" / "LQ" / "0", hq)
    out = tmp_path / "out"
    assert run(tmp_path / "RealVSR", out, "--models", "--baselines", "span") == 0
    found = json.loads((out / "benchmark.json").read_text())["clips"]
    assert found["bicubic"]["0"]["mean"]["psnr"] == 100
    assert 20 < found["span"]["0"]["mean"]["psnr"] < 60


def test_the_models_restorer_streams_what_the_pipeline_gives(pipe: DLoRALPipeline) -> None:
    small = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    restored = torch.stack(list(model_restorer(pipe, Scales(1.0, 0.5))(small, (32, 32))))
    whole = pipe(resize_bicubic(small, 32, 32), consistency=1.0, detail=0.5).frames
    assert torch.equal(restored, whole)


def test_a_baseline_is_reduced_by_area() -> None:
    upscaler = torch.nn.Upsample(scale_factor=4)
    restorer = baseline_restorer(lambda frame: upscaler(frame[None])[0])
    frame = torch.rand(3, 4, 6)
    assert torch.allclose(next(restorer([frame], (4, 6))), frame)


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (["--settings", "1"], 2, "--settings is '1'"),
        (["--settings", "3,1"], 2, "consistency"),
        (["--settings", "1,1", "1,1"], 2, "twice"),
        (["--settings", "1,1,2"], 2, "window"),
        (["--settings", "1,1,1,lanczos"], 2, "bicubic is 'lanczos'"),
        (["--protocol", "ours"], 2, "--protocol is 'ours'"),
        (["--degradation", "blur"], 2, "--degradation is 'blur'"),
        (["--frames", "0"], 2, "--frames is 0"),
        (["--seed", "-1"], 2, "--seed is -1"),
        (["--baselines", "esrgan"], 2, "no baseline 'esrgan'"),
        (["--baselines", "realesr-general-x4v3"], 2, "--network realesr-general-x4v3=FILE"),
        (["--network", "general"], 2, "give NAME=FILE"),
        (["--network", "general=absent.pth"], 1, "absent.pth"),
        (["--models", "absent"], 1, "absent"),
        (["--metrics", "beauty"], 2, "no measure 'beauty'"),
        (["--flow", "fast"], 2, "--flow is 'fast'"),
    ],
)
def test_wrong_calls_are_one_line_before_anything_is_measured(
    more: list[str], status: int, said: str, pairs: Path, tmp_path: Path, capsys
) -> None:
    call = ["benchmark", str(pairs), "-o", str(tmp_path / "out"), "--models", *more]
    assert main(call) == status
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folders_of_something_else_are_left_alone(pairs: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert run(pairs, tmp_path / "mine", "--models") == 1
    assert run(pairs, pairs, "--models") == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert sorted(path.name for path in pairs.iterdir()) == ["GT", "LQ"]


def test_a_comparison_by_ratio_is_printed_as_a_factor() -> None:
    """Of what is compared by differences the sign is printed."""
    ratio = paired_ratio({"a": 1.0, "b": 4.0}, {"a": 2.0, "b": 8.0})
    assert difference_cell("warping_error", (ratio, 0.01)) == "x0.50 (0.50 to 0.50)*"
    difference = paired_difference({"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 3.0})
    assert difference_cell("psnr", (difference, 0.2)).startswith("-1.0")
    assert difference_cell("warping_error", None) == "–"


def test_methods_are_compared_over_the_clips_that_both_have() -> None:
    """By 1 dB everywhere; the clip that one of them lacks is easy."""
    base = {f"{name}{part}": 20.0 + 10 * (part == 1) for name in "abc" for part in (0, 1)}
    ours = {name: value + 1 for name, value in base.items() if name != "a1"}
    figures = {
        method: {
            name: {"source": name[0], "mean": {"psnr": value}} for name, value in values.items()
        }
        for method, values in (("bicubic", base), ("ours", ours))
    }
    dataset = DataSet("made up", "folder", ())
    done = Benchmark(dataset, {}, ("psnr",), ["bicubic", "ours"], figures)
    difference, _ = differences(done, "bicubic")["ours"]["psnr"]
    assert difference.mean == pytest.approx(1)
    assert difference.count == 3
