"""Files appear whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from dloral.errors import OutputError
from dloral.files import beside, write_json, write_text, write_whole


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "report.md"
    write_text(target, "first \u2191")
    assert target.read_text(encoding="utf-8") == "first \u2191"

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError) as caught:
        write_whole(target, fail)
    assert caught.value.path == target
    assert str(caught.value) == f"{target} cannot be written: no space left on device"
    assert target.read_text(encoding="utf-8") == "first \u2191"
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such file"):
        write_text(tmp_path / "absent" / "a.txt", "")


def test_json_has_no_nan(tmp_path: Path) -> None:
    value = {"a": [1.5, float("nan")], "b": {"c": float("inf")}, "d": ("x", None, 2)}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        **{"a": [1.5, None], "b": {"c": None}, "d": ["x", None, 2]}
    }


@pytest.mark.parametrize("letter", ["n", "ü", "漢"])
def test_names_beside_long_names_fit_and_differ(tmp_path: Path, letter: str) -> None:
    stem = letter * (250 // len(os.fsencode(letter)))
    first, second = (beside(tmp_path / f"{stem}{end}", ".", ".resume") for end in ("a", "b"))
    assert first != second
    for path in (first, second):
        path.mkdir()
        assert len(os.fsencode(path.name)) <= 255
    assert beside(tmp_path / "a.mp4", suffix=".resume").name == "a.mp4.resume"
