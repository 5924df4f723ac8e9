"""Options that do nothing for a source and a target are said."""

from pathlib import Path

import pytest
from clips import write_clip
from PIL import Image

from dloral.cli import main
from dloral.options import UpscaleOptions
from dloral.video.probe import probe
from dloral.video.unused import unused_notes


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A silent ``clip.mp4``, a ``picture.png``, a ``stack.tif`` and a folder of ``frames``."""
    monkeypatch.chdir(tmp_path)
    write_clip(Path("clip.mp4"), 2)
    Path("frames").mkdir()
    pages = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in (0, 99)]
    pages[0].save("picture.png")
    pages[0].save("stack.tif", save_all=True, append_images=pages[1:])
    for index, page in enumerate(pages):
        page.save(f"frames/{index}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("call", "notes"),
    [
        ("clip.mp4 -o out.mp4 --fps 30", ["fps ignored: the source has its own timestamps"]),
        ("frames -o out.mp4 --fps 30", []),
        ("stack.tif -o out.mp4 --fps 30", []),
        (
            "picture.png -o out.png --fps 30 --duration 1",
            ["fps, duration ignored: a picture has no length"],
        ),
        (
            "frames -o out --codec h265 --crf 20 --preset slow --chroma 444 --encoder-option bf=2",
            [
                "codec, crf, preset, chroma, encoder options ignored: a folder of frames holds "
                "pictures, and no video codec"
            ],
        ),
        ("picture.png -o out.jpg --bit-depth 10", ["bit depth ignored: .jpg holds 8 bits"]),
        ("picture.png -o out.png --bit-depth 10", []),
        ("frames -o out.mp4 --audio aac", ["audio ignored: the source has no sound"]),
        ("clip.mp4 -o out.mp4 --audio none --crf 20 --hdr sdr --size-changes refuse", []),
        ("frames -o out --no-keep-names", []),
        (
            "frames -o out.mp4 --no-keep-names --pipe-format rawvideo",
            [
                "keep names ignored: names are kept from folder to folder",
                "pipe format ignored: no frames go to standard output",
            ],
        ),
    ],
)
def test_what_changes_nothing_is_said(
    call: str, notes: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upscale", *call.split(), "--model", "bicubic", "--scale", "1"]) == 0
    printed = capsys.readouterr().err.splitlines()
    assert printed == [f"note: {note}" for note in notes]


def test_nothing_is_said_of_defaults(place: Path) -> None:
    for name in ("clip.mp4", "picture.png", "stack.tif", "frames"):
        for suffix in (".mp4", ".png", ".gif", ""):
            assert unused_notes(probe(name), UpscaleOptions(), suffix) == []


def test_a_pattern_of_names_is_for_batches(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["upscale", "clip.mp4", "-o", "out.mp4", "--model", "bicubic", "--name", "{stem}-x"]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("dloral: --name names the results of a batch")
    assert not (place / "out.mp4").exists()
