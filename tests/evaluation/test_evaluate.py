"""dloral evaluate: clips of every kind, what goes wrong with them, reports, VMAF."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dloral.cli import main
from dloral.errors import OptionError, WeightsError
from dloral.evaluation.catalogue import GROUPS, METRIC_SPECS, MetricSuite, Settings, chosen_metrics
from dloral.evaluation.evaluate import evaluate
from dloral.evaluation.fidelity import psnr
from dloral.evaluation.measures import measure_clip
from dloral.evaluation.report import write_reports
from dloral.evaluation.vmaf import vmaf
from dloral.video.images import encode_image
from dloral.video.probe import probe

from .conftest import FFMPEG, degraded

Encode = Callable[..., Path]


@pytest.fixture
def clip(pictures: list[Tensor]) -> Tensor:
    """Five frames (5,3,96,128) that move."""
    return torch.stack([pictures[4][:, 10:106, 20 + 2 * i : 148 + 2 * i] for i in range(5)])


@pytest.fixture
def pair(clip: Tensor, encode: Encode, tmp_path: Path) -> tuple[Path, Path]:
    """(restored, reference), without loss."""
    spoilt = torch.stack([degraded(frame, 4) for frame in clip])
    codec = {"codec": "ffv1", "pixels": "bgr0"}
    return (
        encode(tmp_path / "restored.mkv", spoilt, **codec),
        encode(tmp_path / "reference.mkv", clip, **codec),
    )


def folder_of(frames: Tensor, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        (folder / f"f{index}.png").write_bytes(encode_image(frame, ".png"))
    return folder


def test_a_file_and_a_folder_give_the_same(
    clip: Tensor, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    spoilt = torch.stack([degraded(frame, 4) for frame in clip])
    restored, reference = (
        folder_of(frames, tmp_path / name) for name, frames in (("r", spoilt), ("g", clip))
    )
    from_files = evaluate(*pair).results[0].measured
    from_folders = evaluate(restored, reference).results[0].measured
    assert from_files.frames == from_folders.frames
    codes = (255 * spoilt).round() / 255
    wanted = [psnr(a, b) for a, b in zip(codes, (255 * clip).round() / 255, strict=True)]
    assert from_files.frames["psnr"] == pytest.approx(wanted, abs=1e-3)
    assert from_files.totals["psnr"] == pytest.approx(sum(wanted) / 5, abs=1e-3)
    assert from_files.frames["warping_error"][0] is None


def test_one_bad_pair_leaves_the_others(
    clip: Tensor, encode: Encode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shorter, a smaller, a missing and a damaged clip; two good ones are measured."""
    restored, reference = tmp_path / "restored", tmp_path / "reference"
    for folder in (restored, reference):
        folder.mkdir()
        for name in ("good", "longer", "large", "alone", "torn", "zfine"):
            encode(folder / f"{name}.mkv", clip, codec="ffv1", pixels="bgr0")
    encode(reference / "longer.mkv", clip[:3], codec="ffv1", pixels="bgr0")
    encode(reference / "large.mkv", clip[..., :64], codec="ffv1", pixels="bgr0")
    (reference / "alone.mkv").unlink()
    torn = bytearray((restored / "torn.mkv").read_bytes())
    torn[len(torn) // 2 :] = torn[: len(torn) - len(torn) // 2]
    (restored / "torn.mkv").write_bytes(torn)
    report = tmp_path / "report.json"
    status = main(["evaluate", str(restored), "--reference", str(reference), "-o", str(report)])
    assert status == 1
    found = {one["name"]: one for one in json.loads(report.read_text())["clips"]}
    assert {name for name, one in found.items() if one["error"]} == {
        *("longer", "large", "alone", "torn")
    }
    assert found["good"]["mean"] == found["zfine"]["mean"]
    assert "5 frames and its reference 3" in found["longer"]["error"]
    assert "128x96 and its reference 64x96" in found["large"]["error"]
    assert "no reference named alone" in found["alone"]["error"]
    assert "torn" in found["torn"]["error"]
    printed = capsys.readouterr()
    assert printed.out.count("NOT MEASURED") == 4
    assert printed.err.startswith("dloral: not measured: alone")
    assert printed.err.count("\n") == 1


def test_a_corrupt_picture_in_a_folder_names_itself(
    clip: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restored = folder_of(clip, tmp_path / "r")
    frame = restored / "f3.png"
    frame.write_bytes(frame.read_bytes()[:200])
    done = evaluate(restored)
    assert "f3.png" in done.results[0].error
    assert not done.complete


def test_an_unavailable_measure_is_named_and_the_rest_measured(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("dloral")
    status = main(["evaluate", str(pair[0]), "--metrics", "musiq", "flicker"])
    printed = capsys.readouterr()
    if status == 0:
        pytest.skip("pyiqa and its weights are here")
    assert status == 1
    assert "Flicker" in printed.out
    assert "NOT AVAILABLE musiq" in printed.out
    assert "pyiqa" in printed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metrics", "psnr"], "give --reference"),
        (["--metrics", "psrn"], "no measure 'psrn'; choose from psnr"),
        (["--every", "0"], "every is 0"),
        (["--flow", "farneback"], "choose from dis, raft"),
        (["-o", "report.txt"], ".json, .md, .html"),
        (["--device", "tpu"], "'tpu' is not a device"),
    ],
)
def test_wrong_calls(
    pair: tuple[Path, Path],
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["evaluate", str(pair[0]), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_nothing_to_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["evaluate", str(tmp_path / "empty")]) == 1
    assert main(["evaluate", str(tmp_path / "none.mp4")]) == 1
    said = capsys.readouterr().err
    assert "holds no clips" in said
    assert "none.mp4" in said


def test_vmaf_is_ffmpegs_by_hand(pictures: list[Tensor], encode: Encode, tmp_path: Path) -> None:
    """Ten pairs of clips, each coded another way."""
    values = []
    for index in range(10):
        frames = torch.stack([pictures[index], pictures[index]])
        reference = encode(tmp_path / f"g{index}.mp4", frames, "-crf", "1")
        restored = encode(tmp_path / f"r{index}.mkv", frames, "-crf", str(20 + 3 * index))
        log = tmp_path / "by_hand.json"
        graph = f"libvmaf=log_fmt=json:log_path={log}"
        command = [FFMPEG, "-loglevel", "error", "-i", str(restored), "-i", str(reference)]
        subprocess.run([*command, "-lavfi", graph, "-f", "null", "-"], check=True)
        wanted = [f["metrics"]["vmaf"] for f in json.loads(log.read_text())["frames"]]
        values.append(vmaf(probe(restored), probe(reference)))
        assert values[-1] == pytest.approx(wanted, abs=1e-4)
    assert min(v[0] for v in values) < 70 < 90 < max(v[0] for v in values)


def test_vmaf_of_a_folder(clip: Tensor, tmp_path: Path) -> None:
    """Names in natural order and with a quote; equal clips have nearly 100."""
    frames = torch.cat([clip, clip, clip[:2]])
    folders = [folder_of(frames, tmp_path / name) for name in ("it's", "g")]
    found = vmaf(*map(probe, folders))
    assert len(found) == 12
    assert min(found) > 95


def test_slow_measures_see_every_nth_frame(clip: Tensor) -> None:
    names = ("psnr", "lpips_like")
    ready = MetricSuite(Settings(metrics=names, every=2))
    assert not ready.unavailable
    measured = measure_clip(clip, ready.measures(), clip.flip(3), every=2)
    assert [value is not None for value in measured.frames["psnr"]] == [True] * 5
    assert [value is not None for value in measured.frames["lpips_like"]] == [
        *(True, False, True, False, True)
    ]


def test_groups_without_a_reference_leave_out_what_needs_one() -> None:
    alone = chosen_metrics(["offline"], has_reference=False)
    assert set(alone) == {n for n in GROUPS["offline"] if METRIC_SPECS[n].scope != "reference"}
    assert chosen_metrics(["fast", "psnr"], has_reference=True) == (
        *("psnr", "ssim", "warping_error", "flicker"),
    )
    with pytest.raises(OptionError, match="ssim compares with the ground truth"):
        chosen_metrics(["ssim"], has_reference=False)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from dloral.models.perceptual import package_file

    with pytest.raises(WeightsError, match="no_such_package is not installed; get it"):
        package_file("no_such_package", "file", "get it")


def test_report_page_stands_alone(pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    markdown = tmp_path / "report.md"
    arguments = ["evaluate", str(pair[0]), "--reference", str(pair[1]), "--input", str(pair[1])]
    assert main([*arguments, "--quiet", "-o", str(page), "-o", str(markdown)]) == 0
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 6  # first frame and profile of three clips
    assert "http://" not in text
    assert "https://" not in text
    assert text.count("<polyline") == 4
    for title in ("PSNR", "SSIM", "E*warp", "Flicker"):
        assert title in text
        assert title in markdown.read_text()
    assert "DIS" in text


@pytest.mark.parametrize("name", ["none/report.json", "folder.json", "restored.mkv/report.json"])
def test_a_report_that_cannot_be_written_is_said_before_the_measuring(
    pair: tuple[Path, Path],
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder.json").mkdir()
    monkeypatch.setattr("dloral.evaluation.evaluate.evaluate", None)  # it must not come to that
    good = tmp_path / "report.json"
    assert main(["evaluate", str(pair[0]), "-o", str(tmp_path / name), "-o", str(good)]) == 1
    printed = capsys.readouterr().err
    assert "is not a directory" in printed or "is a folder" in printed
    assert printed.count("\n") == 1


def test_a_clip_is_not_replaced_by_its_report(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip is known by its content, whatever its name."""
    clips = [path.rename(path.with_suffix(".json")) for path in pair]
    before = [clip.read_bytes() for clip in clips]
    for clip in clips:
        call = ["evaluate", str(clips[0]), "--reference", str(clips[1]), "-o", str(clip)]
        assert main(call) == 2
        assert "is read as a source" in capsys.readouterr().err
    assert [clip.read_bytes() for clip in clips] == before


def test_a_report_in_the_folder_of_clips_can_be_written_again(
    clip: Tensor, encode: Encode, tmp_path: Path
) -> None:
    encode(tmp_path / "a.mkv", clip[:2], codec="ffv1", pixels="bgr0")
    report = tmp_path / "report.json"
    for _ in range(2):
        call = ["evaluate", str(tmp_path), "--metrics", "grid", "--quiet", "-o", str(report)]
        assert main(call) == 0
        assert len(json.loads(report.read_text())["clips"]) == 1
        report.with_suffix(".md").write_text("older")


def test_one_report_that_fails_leaves_the_others(
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The folder goes away while clips are measured."""
    gone, good = tmp_path / "gone" / "x.json", tmp_path / "ok.json"
    gone.parent.mkdir()

    def write_late(done, paths):
        gone.parent.rmdir()
        return write_reports(done, paths)

    monkeypatch.setattr("dloral.evaluation.report.write_reports", write_late)
    call = ["evaluate", str(pair[0]), "--metrics", "grid_2", "-o", str(gone), "-o", str(good)]
    assert main(call) == 1
    printed = capsys.readouterr()
    assert json.loads(good.read_text())["clips"][0]["error"] is None
    assert "| Grid 2" in printed.out
    assert printed.err.startswith(f"dloral: {gone} cannot be written")
    assert printed.err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_one_line(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", str(pair[0]), "--reference", str(pair[1]), "--metrics", "lpips_like"]
    assert main([*call, "--device", "cuda"]) == 2
    printed = capsys.readouterr().err
    assert "device 'cuda' is not on this machine" in printed
    assert printed.count("\n") == 1


def test_the_device_can_be_chosen_for_one() -> None:
    found = "cuda" if torch.cuda.is_available() else "cpu"
    assert MetricSuite(Settings(metrics=("psnr",), device="auto")).device.startswith(found)


def test_an_ffmpeg_that_cannot_be_run_makes_vmaf_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent")
    ready = MetricSuite(Settings(metrics=("psnr", "vmaf")))
    assert [spec.name for spec in ready.specs] == ["psnr"]
    said = ready.unavailable["vmaf"]
    assert "/nonexistent cannot be run: no such file" in said
    assert "\n" not in said
