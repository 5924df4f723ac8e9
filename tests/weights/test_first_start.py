"""A whole ``--model sd21`` start on an empty machine: processes of their own, told by
``HF_ENDPOINT`` where the Hub is. Fetched, converted, kept, a clip restored; the second start asks
nobody."""

import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hub_server import Hub
from reference_files import DATA
from released import BASE, BASES, CHECKPOINT

from dloral.cli import main
from dloral.options import UpscaleOptions
from dloral.prompts import Scene
from dloral.upscale import upscale_video
from dloral.video.reader import read_frames
from dloral.weights.convert import convert

COMMAND_LINE = Path(__file__).parents[1] / "support" / "command_line.py"


@pytest.fixture
def call(hub: Hub, home: Path):
    """Runs the command line with this Hub and this home."""
    asked = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "PYTHONPATH": str(DATA.parents[1])}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, COMMAND_LINE, *map(str, arguments)],
            env=kept | asked | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of two frames, 32 x 24."""
    from PIL import Image

    folder = tmp_path / "clip"
    folder.mkdir()
    draw = torch.Generator().manual_seed(0)
    for index in range(2):
        pixels = (255 * torch.rand(24, 32, 3, generator=draw)).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_first_and_second_start(hub: Hub, home: Path, clip: Path, tmp_path: Path, call) -> None:
    wanted = ("--model", "sd21", "--device", "cpu", "--dtype", "float32", "--scale", "2")
    first = call("upscale", clip, "-o", tmp_path / "first", *wanted)
    assert first.returncode == 0, first.stderr
    # what comes is said first, and from where
    whole = sum(len(file) for repo in hub.repos.values() for file in repo.files.values())
    assert f"to download: {whole / 1e6:.1f} MB" in first.stderr
    assert first.stderr.index("sd21-base from " + BASES[2]) < first.stderr.index("from 0.00 s: ")
    assert "2 frames" in first.stdout
    assert hub.asked("GET", "/cdn/")

    hub.log.clear()
    second = call("upscale", clip, "-o", tmp_path / "second", *wanted)
    assert second.returncode == 0, second.stderr
    assert not hub.log
    assert "download" not in second.stderr

    # Tables A1 and A3 as docs/evaluation.md has them, on the same weights
    shutil.copytree(clip, tmp_path / "clips" / "one")
    for study in ("branches", "windows"):
        out = tmp_path / study
        chosen = (*wanted[:-2], "--data", tmp_path / "clips", "--metrics", "warping_error")
        assert main(["study", "measure", study, *map(str, chosen), "-o", str(out)]) == 0
        assert "paper: " in (out / "README.md").read_text()
    assert not hub.log

    # the same frames as from a folder that `convert` made of the same files, and the same prompts
    convert(CHECKPOINT, BASE, tmp_path / "model", torch.float16)
    told = re.findall(r"^from ([\d.]+) s: (.*)$", first.stderr, re.MULTILINE)
    settings = UpscaleOptions(str(tmp_path / "model"), scale=2.0, device="cpu", dtype="float32")
    scenes = [Scene(Fraction(start), prompt) for start, prompt in told]
    upscale_video(clip, tmp_path / "same", settings, scenes=scenes)
    frames = [read(tmp_path / name) for name in ("first", "second", "same")]
    assert frames[0].shape == (2, 3, 48, 64)
    assert torch.equal(frames[0], frames[1])
    torch.testing.assert_close(frames[0], frames[2], atol=1.5 / 255, rtol=0)


def read(folder: Path) -> torch.Tensor:
    with read_frames(folder) as frames:
        return torch.stack([frame.pixels for frame in frames])


def test_dry_run_brings_nothing(hub: Hub, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "sd21", "--without", "tagger", "--dry-run"]) == 0
    whole = sum(file.stat().st_size for file in (CHECKPOINT, *BASE.rglob("*")) if file.is_file())
    assert f"to download: {whole / 1e6:.1f} MB" in capsys.readouterr().out
    assert not hub.asked("GET", "/resolve/")
    assert not home.exists()


def test_cold_and_offline(hub: Hub, clip: Path, tmp_path: Path, call) -> None:
    failed = call("upscale", clip, "-o", tmp_path / "out", "--model", "sd21", HF_HUB_OFFLINE="1")
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "HF_HUB_OFFLINE is set; try again (python -m dloral fetch sd21)" in failed.stderr
    assert not (tmp_path / "out").exists()
    assert not hub.log
