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
