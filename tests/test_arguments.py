"""Every typed argument of every command: what was found and what to give, in one line."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import write_clip
from PIL import Image

from dloral.cli import build_parser, main
from dloral.studio.server import build_parser as build_page_parser


def actions_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from actions_of(inner)
        else:
            yield parser.prog, action


def test_every_type_words_its_own_refusal() -> None:
    """Else argparse shows the name of our function: ``invalid _rate value``."""
    count = 0
    for parser in (build_parser(), build_page_parser("app.py")):
        for prog, action in actions_of(parser):
            if action.type is not None:
                assert callable(action.type)
                with pytest.raises(argparse.ArgumentTypeError, match="; give ") as refusal:
                    action.type("\0")
                assert "\n" not in str(refusal.value), f"{prog} {action.dest}"
                count += 1
    assert count > 80


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--fps x", "argument --fps: 'x' is not a number of frames per second; give 25, "),
        ("--fps 1/0", "argument --fps: '1/0' is not a number of frames"),
        ("--bit-depth x", "argument --bit-depth: 'x' is not a bit depth; give 8, 10 or auto"),
        ("--bit-depth 9", "dloral: --bit-depth is 9; choose from auto, 8, 10"),
        ("--crf x", "argument --crf: 'x' is not a whole number; give one, such as 4"),
        ("--crf 99", "dloral: --crf is 99; give a number from 0 to 63"),
        ("--scale x", "argument --scale: 'x' is not a number; give one, such as 1.5"),
        ("--tile x", "argument --tile: 'x' is not a tile side; give latent cells"),
        ("--tile 16", "dloral: --tile-overlap is 32 with a tile of 16 latent cells; "),
        ("--start 1:99", "argument --start: '1:99' is not a time; give seconds"),
        ("--window 2", "dloral: --window is 2; choose from 0, 1, 3, 5"),
    ],
)
def test_values_of_upscale(words: str, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["upscale", "absent.mp4", "-o", "out.mp4", *words.split()])
    except SystemExit as ended:
        status = ended.code
    printed = capsys.readouterr().err
    assert (status, printed.count("\n")) == (2, 1)
    assert found in printed


LONG = 300 * "n"
COMMANDS = (
    *("upscale NAME -o OUT.mp4", "upscale a.mp4 -o NAME", "upscale a.mp4 NAME -o OUT"),
    *("upscale a.mp4 -o OUT.mp4 --resume -i NAME", "upscale --list NAME -o OUT"),
    *("convert NAME --base FOLDER -o OUT", "convert a.mp4 --base FOLDER -o NAME", "export -o NAME"),
    *("bench --json NAME", "train compact-cpu --data photos:NAME -o OUT"),
    *("train NAME --data photos:FOLDER -o OUT", "embed NAME --to OUT", "curve NAME -o OUT.png"),
    *("data list NAME", "data pack photos:NAME -o OUT --count 1", "data manifest NAME -o OUT"),
    *("evaluate NAME", "evaluate a.mp4 --reference NAME", "compare a.mp4 NAME -o OUT.mp4"),
    *("study report NAME", "benchmark NAME -o OUT", "baseline bicubic NAME -o OUT.mp4"),
)
NAMES = {
    "too long": (LONG, "file name too long"),
    "NUL": ("a\0b", "it holds a nul"),
    "a link to itself": ("loop", "symbolic links"),
    "empty": ("", "is not a name"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an empty file and a FOLDER."""
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").touch()
    Path("FOLDER").mkdir()
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", NAMES)
def test_names_that_cannot_be_looked_up(
    command: str, kind: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("loop").symlink_to("loop")
    name, why = NAMES[kind]
    with pytest.raises(SystemExit) as ended:
        main([word.replace("NAME", name) for word in command.split()])
    printed = capsys.readouterr().err
    assert (ended.value.code, printed.count("\n")) == (2, 1)
    assert why in printed.lower()
    assert len(printed) < 300
    assert sorted(path.name for path in place.iterdir()) == ["FOLDER", "a.mp4", "loop"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_through_a_file_is_one_line(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command says so itself; a batch has a line for each of its clips."""
    arguments = [word.replace("NAME", "a.mp4/x") for word in command.split()]
    try:
        status = main(arguments)
    except SystemExit as ended:
        status = ended.code
    printed = capsys.readouterr().err
    assert status in (1, 2)
    assert printed
    assert all(line.startswith("dloral") for line in printed.splitlines())
    assert sorted(path.name for path in place.iterdir()) == ["FOLDER", "a.mp4"]


def test_a_name_with_a_newline_stays_on_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In errors, in notes, and in a batch's table."""
    name = "two\nlines\u202e\x1b"
    shown = r"two\nlines\u202e\x1b"
    assert main(["upscale", str(tmp_path / f"{name}.mp4"), "-o", str(tmp_path / "x.mp4")]) == 1
    assert f"{shown}.mp4 cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", name])
    assert f"unrecognized arguments: {shown}" in capsys.readouterr().err
    frames = tmp_path / "frames"
    frames.mkdir()
    write_clip(tmp_path / f"{name}.mp4", 1)
    (frames / f"{name}.txt").touch()
    Image.new("RGB", (16, 16)).save(frames / "0.png")
    sources = [str(frames), str(tmp_path / f"{name}.mp4"), str(frames / f"{name}.txt")]
    out = str(tmp_path / "out")
    assert main(["upscale", *sources, "-o", out, "--model", "bicubic", "--scale", "1"]) == 1
    printed = capsys.readouterr()
    lines = (printed.err + printed.out).splitlines()
    assert sum(line.startswith(("note: ", "dloral: ")) for line in printed.err.splitlines()) == 2
    assert len(printed.err.splitlines()) == 2
    assert len(printed.out.splitlines()) == 4
    assert sum(shown in line for line in lines) == 4
    assert not any(mark in "".join(lines) for mark in "\u202e\x1b")
