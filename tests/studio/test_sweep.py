"""What hard ends leave goes."""

import os
import time
from pathlib import Path

from dloral.studio.sweep import claim, remove_dead, remove_old


def test_a_dead_pages_folder_goes_and_a_living_ones_stays(tmp_path: Path):
    own, living, dead, foreign = (
        tmp_path / f"dloral-page-{name}" for name in ("a" * 8, "b" * 8, "c_______", "c-copy")
    )
    for folder in (own, living, dead, foreign):
        (folder / "sessions").mkdir(parents=True)
        (folder / "sessions" / "clip.mp4").write_bytes(b"a")
    locks = [claim(own), claim(living)]
    claim(dead).release()
    for folder in (dead, foreign):
        (folder / ".lock").touch()
    assert remove_dead(own) == [dead.name]
    assert sorted(tmp_path.iterdir()) == [own, living, foreign]
    for lock in locks:
        lock.release()


def test_old_uploads_go_and_what_has_an_owner_stays(tmp_path: Path):
    sessions = tmp_path / "sessions"
    old = [tmp_path / "upload" / "half.part", tmp_path / "a" / "b" / "result.mp4"]
    kept = [sessions / "one" / "clip.mp4", tmp_path / "new" / "result.mp4", tmp_path / ".lock"]
    for file in (*old, *kept):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"a")
    for path in (*old, kept[0], kept[2], tmp_path / "upload", tmp_path / "a" / "b", tmp_path / "a"):
        os.utime(path, (time.time() - 100, time.time() - 100))
    assert remove_old(tmp_path, 50, sessions) == 2
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
