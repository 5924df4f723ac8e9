"""``dloral data``: packs, what is held out, and a person's mistakes in one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from dloral.cli import main
from dloral.data.manifest import HeldOut
from dloral.data.packs import Pack


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def pack(photos: Path, out: Path, *words: str) -> int:
    fixed = ["--size", "64", "--workers", "1"]
    return main(["data", "pack", f"photos:{photos}", "-o", str(out), *fixed, *words])


def test_a_pack_is_made_of_what_is_asked_for(
    photos: Path, packs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert pack(photos, tmp_path / "a", *["--count", "6", "--frames", "3", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert "2 photographs, 0 places in videos, 0 files left out" in printed
    assert f"made: {tmp_path / 'a'}" in printed
    for name in ("hq", "lq", "flow"):
        made, known = (np.load(f / f"{name}.npy") for f in (tmp_path / "a", packs / "clips"))
        assert np.array_equal(made, known)
    assert pack(photos, tmp_path / "b", *["--count", "1", "--only", "1.png"]) == 0
    assert "0.png: not among those named" in capsys.readouterr().out


def test_held_out_material_is_left_out_or_all_there_is(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    listed = tmp_path / "held_out.json"
    assert main(["data", "manifest", str(photos / "1.png"), "-o", str(listed)]) == 0
    assert [entry.name for entry in HeldOut.load(listed).entries] == ["1.png"]
    assert main(["data", "manifest", str(photos), "-o", str(listed)]) == 1  # it is not replaced
    words = ["--count", "2", "--manifest", str(listed)]
    for choice, used in (("without", {"0.png"}), ("only", {"1.png"}), ("with", {"0.png", "1.png"})):
        assert pack(photos, tmp_path / choice, *words, "--held-out", choice) == 0
        assert Pack(tmp_path / choice).manifest()["sources"].keys() == used
    assert "1.png: held out" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        pack(photos, tmp_path / "none", *words, "--held-out", "never")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("pack photos:ABSENT -o OUT --count 1", 1, "ABSENT does not exist"),
        ("pack photos:EMPTY -o OUT --count 1", 1, "no usable source"),
        ("pack EMPTY -o OUT --count 1", 2, "give KIND:PATH"),
        ("pack pack:EMPTY -o OUT --count 1", 2, "cannot be mixed with other places"),
        ("pack photos:PHOTOS -o EMPTY --count 1 --size 64", 1, "EMPTY exists already"),
        ("pack photos:PHOTOS -o OUT --count 0 --size 64", 2, "count is 0"),
        ("pack photos:PHOTOS -o OUT --count 1 --size 100", 2, "size is 100"),
        ("pack photos:PHOTOS -o OUT --count 1 --size 64 --workers 0", 2, "workers is 0"),
        ("pack photos:PHOTOS -o OUT --count 1 --size 64 --manifest ABSENT", 1, "not a list"),
        ("pack photos:PHOTOS -o OUT --count 1 --size 64 --held-out only", 1, "no usable source"),
        ("manifest EMPTY -o OUT", 1, "holds no photograph and no video"),
        ("manifest ABSENT -o OUT", 1, "ABSENT does not exist"),
        ("manifest -o OUT", 2, "nothing to hold out"),
        ("manifest PHOTOS -o EMPTY", 1, "EMPTY exists already"),
        ("manifest --film ABSENT 3 -o OUT", 1, "ABSENT"),
        ("manifest --film ABSENT half -o OUT", 2, "give a whole number"),
        ("list tiny --data photos:ABSENT", 1, "ABSENT does not exist"),
        ("list none", 2, "none"),
    ],
)
def test_a_mistake_is_one_line(
    words: str,
    status: int,
    said: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "PHOTOS").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    assert main(["data", *words.split()]) == status
    found = lines(capsys)
    assert len(found) == 1
    assert found[0].startswith("dloral: ")
    assert said in found[0]
    assert not (tmp_path / "OUT").exists()


def test_listing_says_what_is_held_out(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """A training leaves it out, and refuses a place where nothing else is, or a pack made of it."""
    listed = tmp_path / "held_out.json"
    assert main(["data", "manifest", str(photos / "1.png"), "-o", str(listed)]) == 0
    assert pack(photos, tmp_path / "pack", *["--count", "1", "--frames", "3"]) == 0
    monkeypatch.setattr("dloral.data.manifest.PROJECT", listed)
    capsys.readouterr()
    assert main(["data", "list", "tiny", "--data", f"photos:{photos}"]) == 0
    printed = capsys.readouterr().out
    assert "1 photographs" in printed
    assert "1.png: held out: never trained on" in printed
    only = ["--data", f"photos:{photos}", "--set", "data.consistency.only=('1.png',)"]
    for words in (only, ["--data", f"pack:{tmp_path / 'pack'}"]):
        for command in (["data", "list"], ["train", "-o", str(tmp_path / "run")]):
            assert main([*command, "tiny", *words]) == 1
            assert "held out" in lines(capsys)[-1]
    assert not (tmp_path / "run").exists()


def test_the_list_names_files_and_no_folders():
    """The project's own: it loads, each content once, no paths; the film from frame 8,000 on."""
    held_out = HeldOut.load()
    assert len({entry.sha256 for entry in held_out.entries}) == len(held_out.entries) > 60
    assert all(len(entry.sha256) == 64 and "/" not in entry.name for entry in held_out.entries)
    film = next(entry for entry in held_out.entries if entry.name == "bbb.mp4")
    assert (film.from_frame, film.second(None)) == (8000, pytest.approx(8000 / 24))
    assert json.loads(held_out.path.read_text()).keys() == {"held_out"}
