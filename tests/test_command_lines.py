"""Every ``python -m dloral...``: a mistake is one line and a status, never a traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dloral
from dloral.cli import main
from dloral.errors import (
    CancelledError,
    DLoRALError,
    InputError,
    OptionError,
    OutputError,
    exit_status,
)


def refuse(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OptionError("wrong"), 2),
        (InputError("wrong"), 1),
        (OutputError("wrong"), 1),
        (DLoRALError("wrong"), 1),
        (CancelledError("wrong"), 130),
    ],
)
def test_status_and_line(
    error: DLoRALError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(refuse(error), "prepare") == status
    assert capsys.readouterr().err == "prepare: wrong\n"


def test_done_stopped_and_our_own_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(lambda: None) == 0
    assert exit_status(refuse(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(AssertionError):
        exit_status(refuse(AssertionError("ours")))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--scale", "0"),
        ("--scale", "0.01"),
        ("--scale", "4.1"),
        ("--scale", "nan"),
        ("--size", "²x²"),
        ("--size", "0x128"),
        ("--size", 5000 * "1" + "x1"),
        ("--frames", "0"),
    ],
)
def test_wrong_bench(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--device", "cpu", option, value]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"dloral: {option} is ")
    assert printed.count("\n") == 1


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with an EMPTY one and one of PHOTOS."""
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "PHOTOS").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "PHOTOS" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SUBCOMMANDS = {
    "benchmark: no clip": ("benchmark EMPTY -o OUT", 1),
    "benchmark: no data set": ("benchmark ABSENT -o OUT", 1),
    "baseline: no clip": ("baseline span ABSENT -o OUT.mp4", 1),
    "baseline: no such name": ("baseline esrgan PHOTOS -o OUT", 2),
    "embed: nothing to embed": ("embed EMPTY --to OUT", 1),
    "curve: no run": ("curve EMPTY -o OUT.png", 1),
    "train: no photographs": ("train compact-cpu --data photos:EMPTY -o OUT", 1),
    "study: no such study": ("study train all --data photos:PHOTOS --held-out EMPTY -o OUT", 2),
    "study: no pack": ("study train order --data photos:PHOTOS --held-out EMPTY -o OUT", 2),
}


@pytest.mark.parametrize("mistake", SUBCOMMANDS)
def test_subcommands_mistake_is_one_line(
    mistake: str, somewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, status = SUBCOMMANDS[mistake]
    assert main(words.split()) == status
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith("dloral: ")
    assert not list(somewhere.glob("OUT*"))


def test_mistake_in_a_process_of_its_own(somewhere: Path) -> None:
    words = ["data", "pack", "photos:EMPTY", "-o", "OUT", "--count", "1"]
    result = subprocess.run(
        [sys.executable, "-m", "dloral", *words],
        env={**os.environ, "PYTHONPATH": str(Path(dloral.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("dloral: ")
    assert result.stderr.count("\n") == 1


HOSTILE = "{value.__class__.__init__.__globals__}{path}{0}"

BRACES = {
    "upscale: absent": ("upscale ABSENT -o OUT.mp4", 1),
    "upscale: not a clip": ("upscale text.mp4 -o OUT.mp4", 1),
    "upscale: no picture": ("upscale text.png -o OUT.png", 1),
    "upscale: frames of two sizes": ("upscale frames -o OUT.mp4", 1),
    "upscale: other files between frames": ("upscale mixed -o OUT.mp4", 1),
    "upscale: not a suffix": ("upscale PHOTOS/a.jpg -o OUT.{path}", 2),
    "upscale: no folder": ("upscale PHOTOS/a.jpg -o ABSENT/OUT.png", 1),
    "upscale: other files in the target": ("upscale PHOTOS -o frames/", 1),
    "upscale: not a pattern": ("upscale PHOTOS/a.jpg PHOTOS/a.jpg -o OUT --name {stem.name}", 2),
    "upscale: no such model": ("upscale PHOTOS/a.jpg -o OUT.png --model ABSENT", 1),
    "upscale: no such codec": ("upscale PHOTOS/a.jpg -o OUT.mp4 --encoder-option HOSTILE", 2),
    "benchmark: no data set": ("benchmark ABSENT -o OUT", 1),
    "curve: no run": ("curve ABSENT -o OUT.png", 1),
    "embed: nothing to embed": ("embed ABSENT --to OUT", 1),
    "train: absent": ("train compact-cpu --data photos:ABSENT -o OUT", 1),
    "train: not a source": ("train compact-cpu --data HOSTILE -o OUT", 2),
}


@pytest.mark.parametrize("mistake", BRACES)
def test_names_full_of_braces_are_shown_as_they_are(
    mistake: str, somewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = somewhere / HOSTILE
    for folder in ("frames", "mixed"):
        (place / folder).mkdir(parents=True)
        for index, side in enumerate((8, 8 + 4 * (folder == "frames"))):
            Image.new("RGB", (side, 8)).save(place / folder / f"{HOSTILE}{index}.png")
    (place / "mixed" / f"{HOSTILE}.psd").touch()
    for name in ("text.mp4", "text.png"):
        (place / name).write_text("text")
    words, status = BRACES[mistake]
    places = {word: f"{HOSTILE}/{word}" for word in ("text.", "frames", "mixed")}
    for word, name in {"ABSENT": HOSTILE + "/absent", "HOSTILE": HOSTILE, **places}.items():
        words = words.replace(word, name)
    assert main(words.split()) == status
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("dloral: ")
    shown = {
        "upscale: not a suffix": "OUT.{path}: .{path} is",
        "upscale: not a pattern": "{stem.name}",
    }
    assert shown.get(mistake, HOSTILE) in printed
    assert "built-in" not in printed
