"""Restored frames that are kept beside the target: theirs are taken away, nobody else's."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from dloral.errors import OptionError
from dloral.video.store import FrameStore

JOB = {"scale": 2, "scenes": [["0", "a street"]]}


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(target: Path) -> str:
    with pytest.raises(OptionError) as caught:
        FrameStore(target, JOB)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def filled(target: Path) -> FrameStore:
    store = FrameStore(target, JOB)
    for shade in (0.25, 0.75):
        store.append(torch.full((3, 4, 6), shade))
    return store


def test_frames_are_kept_and_taken_away(tmp_path):
    filled(tmp_path / "a.mp4")
    store = FrameStore(tmp_path / "a.mp4", JOB)
    assert store.count == 2
    assert abs(store.read(1).mean() - 0.75) < 1e-4
    assert store.remove() == []
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", ["00000000.png", "f1.png", "notes.txt"])
def test_a_folder_that_is_no_store_is_left_alone(tmp_path, name):
    """``clip.resume`` may be anything, the source of target ``clip`` for one."""
    folder = tmp_path / "clip.resume"
    folder.mkdir()
    Image.new("RGB", (6, 4)).save(folder / name, "PNG")
    assert f"holds other files ({name})" in refusal(tmp_path / "clip")
    assert listing(folder) == [name]


def test_an_empty_folder_and_a_job_killed_at_once_are_begun_in(tmp_path):
    folder = tmp_path / "clip.resume"
    folder.mkdir()
    assert FrameStore(tmp_path / "clip", JOB).count == 0
    (folder / "job.json").rename(folder / "job.json.part")
    assert filled(tmp_path / "clip").remove() == []
    assert listing(tmp_path) == []


def test_links_and_files_are_no_store(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "a.resume").symlink_to(elsewhere)
    (tmp_path / "b.resume").symlink_to(tmp_path / "nothing")
    (tmp_path / "c.resume").write_text("mine")
    for name in "abc":
        assert "is a link or a file" in refusal(tmp_path / name)
    assert listing(tmp_path) == ["a.resume", "b.resume", "c.resume", "elsewhere"]
    assert listing(elsewhere) == []


def test_what_others_put_into_a_store_stays_and_is_said(tmp_path):
    store = filled(tmp_path / "a.mp4")
    (store.folder / "notes.txt").write_text("mine")
    (store.folder / "00000002.png.part").write_bytes(b"killed while writing")
    (note,) = store.remove()
    assert "a.mp4.resume could not be removed: directory not empty" in note
    assert listing(store.folder) == ["notes.txt"]


@pytest.mark.parametrize("text", ["[]", "nonsense", "{}"])
def test_another_job_is_named(tmp_path, text):
    store = filled(tmp_path / "a.mp4")
    (store.folder / "job.json").write_text(text)
    assert "a job with another scale, scenes" in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_a_target_without_a_name(target):
    assert "has no name" in refusal(Path(target))
