"""Results on their way, and what killed jobs leave."""

import os

import pytest

from dloral.video.parts import Part


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_dead_part_is_removed_and_a_live_one_stays(tmp_path, is_folder):
    suffix = "" if is_folder else ".mp4"
    target = tmp_path / f"out{suffix}"
    dead = tmp_path / f".out.0123abcd.part{suffix}"
    other = tmp_path / f".other.0123abcd.part{suffix}"
    for path in (dead, other):
        if is_folder:
            path.mkdir()
            (path / "00000000.png").touch()
        else:
            path.touch()
    first = Part(target, tmp_path, suffix, is_folder)
    second = Part(target, tmp_path, suffix, is_folder)
    assert set(tmp_path.iterdir()) == {first.path, second.path, other}
    assert first.left == second.left == []
    first.close()
    second.close()


def test_what_cannot_be_removed_is_named(tmp_path):
    dead = tmp_path / ".out.0123abcd.part"
    dead.mkdir()
    (dead / "mine.txt").touch()
    part = Part(tmp_path / "out", tmp_path, is_folder=True)
    assert part.left == [dead.name]
    assert (dead / "mine.txt").exists()
    part.close()


@pytest.mark.parametrize("name", ["n" * 251, "ü" * 120, "漢" * 83])
def test_names_are_counted_in_bytes(tmp_path, name):
    part = Part(tmp_path / f"{name}.mp4", tmp_path, ".mp4")
    assert len(os.fsencode(part.path.name)) < 128
    part.close()
