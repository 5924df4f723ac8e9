"""Several results in one zip file: all bytes of each, a name for each, written while it is sent."""

import io
import zipfile
from pathlib import Path

from dloral.studio.archive import CHUNK_BYTES, free_names, open_files, zip_of


def write_files(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return paths


def test_all_bytes_come_back_under_names_of_their_own(tmp_path: Path):
    contents = {"a/clip.mp4": bytes(range(256)) * 9000, "b/clip.mp4": b"other", "b/ü.png": b""}
    paths = write_files(tmp_path, contents)
    pieces = list(zip_of(open_files(paths)))
    assert max(map(len, pieces)) < 2 * CHUNK_BYTES  # never a whole file at once
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["clip.mp4", "clip-2.mp4", "ü.png"]
        assert [archive.read(name) for name in archive.namelist()] == list(contents.values())


def test_what_has_gone_is_left_out_and_what_goes_meanwhile_is_whole(tmp_path: Path):
    paths = write_files(tmp_path, {"a.mp4": b"a" * 3_000_000, "b.mp4": b"b" * 3_000_000})
    sending = zip_of(open_files([tmp_path / "gone.mp4", *paths]))
    first = next(sending)
    for path in paths:
        path.unlink()  # as when a visitor deletes a result
    with zipfile.ZipFile(io.BytesIO(first + b"".join(sending))) as archive:
        assert {name: archive.read(name)[:1] for name in archive.namelist()} == {
            "a.mp4": b"a",
            "b.mp4": b"b",
        }
        assert archive.testzip() is None


def test_a_download_that_is_broken_off_leaves_no_file_open(tmp_path: Path):
    files = open_files(write_files(tmp_path, {"a.mp4": b"a" * 3_000_000}))
    sending = zip_of(files)
    next(sending)
    sending.close()
    assert files[0].closed


def test_names_differ_whatever_their_case():
    assert free_names(["x/a.mp4", "y/A.mp4", "a-2.mp4", "a.mp4"]) == [
        "a.mp4",
        "A-2.mp4",
        "a-2-2.mp4",
        "a-3.mp4",
    ]
