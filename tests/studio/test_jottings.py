"""What is written of a job beside its folder."""

from dataclasses import replace
from pathlib import Path

from dloral.jobs.store import JobStore
from dloral.studio.jottings import SUFFIX, jot, jotted, place_of


def record_in(folder: Path):
    visit = folder / "sessions" / "one"
    (visit / "job").mkdir(parents=True)
    store = JobStore(folder / "jobs.sqlite")
    clip = visit / "clip" / "a.mp4"
    record = store.add("token", "a.mp4", clip, visit / "job", {"scale": 2, "model": "bicubic"})
    store.close()
    return record


def test_a_job_is_read_as_it_was_written_wherever_its_folder_is_now(tmp_path: Path):
    record = record_in(tmp_path)
    jot(record)
    sessions = tmp_path / "sessions"
    assert list(jotted(sessions)) == [record]
    moved = tmp_path / "elsewhere"
    sessions.rename(moved)
    (found,) = jotted(moved)
    visit = moved / "one"
    assert found == replace(record, source=visit / "clip" / "a.mp4", folder=visit / "job")


def test_what_is_damaged_is_passed_over(tmp_path: Path, caplog):
    jot(record_in(tmp_path))
    place = place_of(tmp_path / "sessions" / "one" / "job")
    for content in (b"", b"{}", b"[1]", b"\xff\xfe", place.read_bytes()[:50]):
        place.write_bytes(content)
        assert list(jotted(tmp_path / "sessions")) == []
    assert "cannot be read" in caplog.text


def test_a_visitors_file_is_no_job(tmp_path: Path):
    """A clip lies one folder deeper, whatever its name."""
    record = record_in(tmp_path)
    jot(record)
    place = place_of(record.folder)
    (record.source.parent).mkdir()
    place.rename(record.source.with_name(f"mine{SUFFIX}"))
    assert list(jotted(tmp_path / "sessions")) == []
