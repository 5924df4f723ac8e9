"""Reading from a frame's number on."""

from pathlib import Path

import pytest
from clips import write_clip

from dloral.video import seeking
from dloral.video.probe import probe
from dloral.video.seeking import count_frames, read_frames_from


def test_a_file_is_read_once_for_all_of_its_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_clip(tmp_path / "in.mp4", 20, gop=6)
    opened: list[Path] = []
    open_media = seeking.open_media

    def counted(path: Path):
        opened.append(path)
        return open_media(path)

    monkeypatch.setattr(seeking, "open_media", counted)
    clip = probe(path)
    for first in (3, 9, 14):
        with read_frames_from(clip, first) as frames:
            assert [frame.time * 24 for frame in frames] == list(range(first, 20))
    assert opened == [path]
    write_clip(path, 10)
    assert count_frames(probe(path)) == 10
