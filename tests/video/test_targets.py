"""The place of a result: refused, filled, or left as it was, whatever ends the job."""

import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from clips import names_in
from PIL import Image

from dloral.errors import OptionError, OutputError
from dloral.video.probe import ClipInfo, probe
from dloral.video.writer import open_writer
from tests.video.conftest import copy_clip


def test_targets_that_cannot_be(clips, tmp_path):
    source = probe(clips("plain.mp4"))

    def refusal(target, **options) -> str:
        with pytest.raises((OutputError, OptionError)) as caught:
            open_writer(target, width=128, height=96, source=source, **options)
        return str(caught.value)

    assert "is not a directory" in refusal(tmp_path / "none" / "a.mp4")
    assert "the source itself" in refusal(source.path)
    (tmp_path / "b.mp4").write_text("there")
    assert "exists already" in refusal(tmp_path / "b.mp4", overwrite=False)
    assert "is a file, not a folder" in refusal(f"{tmp_path}/b.mp4/")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "a device or a pipe" in refusal(tmp_path / "pipe.mp4")


def break_off(source: ClipInfo, target: Path, error: BaseException) -> None:
    """Write three frames, see that they are not at the target yet, and be stopped by ``error``."""
    folder = target if target.is_dir() else target.parent
    before = names_in(folder)
    with open_writer(target, width=64, height=48, source=source) as writer:
        for index in range(3):
            writer.write(torch.zeros(3, 48, 64), Fraction(index, 25), Fraction(1, 25))
        assert len(names_in(folder)) == len(before) + 1
        raise error


@pytest.mark.parametrize("target", ["a.mp4", "a.mkv", "frames"])
@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), GeneratorExit()])
def test_cancelled_job_leaves_nothing(clips, tmp_path, target, error):
    with pytest.raises(type(error)):
        break_off(probe(clips("sound.mp4")), tmp_path / target, error)
    assert names_in(tmp_path) == []


def test_failed_job_leaves_the_old_file(clips, tmp_path):
    target = tmp_path / "a.mp4"
    target.write_text("old")
    with pytest.raises(RuntimeError):
        break_off(probe(clips("sound.mp4")), target, RuntimeError("a bug"))
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["a.mp4"]


FULL_DISK = """
import resource, sys
from fractions import Fraction
import torch
from dloral.errors import OutputError
from dloral.video.probe import probe
from dloral.video.writer import open_writer

source, target, limit = probe(sys.argv[1]), sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = torch.Generator().manual_seed(0)
try:
    with open_writer(target, width=256, height=192, source=source) as writer:
        for index in range(12):
            pixels = torch.rand(3, 192, 256, generator=noise)
            writer.write(pixels, Fraction(index, 25), Fraction(1, 25))
except OutputError as error:
    print(error)
"""


NO_PERMISSION = """
import os, sys
from dloral.errors import OutputError
from dloral.video.probe import probe
from dloral.video.writer import open_writer

source = probe(sys.argv[1])
if os.geteuid() == 0:
    os.setuid(65534)
try:
    with open_writer(sys.argv[2], width=64, height=48, source=source):
        print("opened")
except OutputError as error:
    print(error)
"""


def said_by(script: str, *arguments: object) -> str:
    """What a process of its own prints; one that is forked here could wait for threads forever."""
    call = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("target", ["a.mp4", "a.mkv", "frames"])
@pytest.mark.parametrize("limit", [2_000, 60_000])
def test_full_disk(clips, tmp_path, target, limit):
    """A limit on the size of files stands for a disk without space."""
    (tmp_path / "a.mp4").write_text("old")
    said = said_by(FULL_DISK, clips("sound.mp4"), tmp_path / target, limit)
    assert re.fullmatch(r".*(a\.mp4|a\.mkv|frames) cannot be written: file too large", said)
    assert names_in(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "old"


@pytest.mark.parametrize("target", ["a.mp4", "frames"])
def test_folder_without_permission(clips, tmp_path, target):
    tmp_path.chmod(0o555)
    said = said_by(NO_PERMISSION, clips("plain.mp4"), tmp_path / target)
    assert "cannot be written: permission denied" in said


@pytest.mark.parametrize("name", ["notes.txt", "00000000.png", "sub"])
def test_folder_with_what_we_did_not_write_is_refused(clips, tmp_path, name):
    folder = tmp_path / "frames"
    folder.mkdir()
    if name == "sub":
        (folder / name).mkdir()
    elif name.endswith(".png"):
        Image.new("RGB", (4, 4)).save(folder / name)
    else:
        (folder / name).write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        copy_clip(probe(clips("plain.mp4")), folder)
    assert names_in(folder) == [name]
    assert names_in(tmp_path) == ["frames"]


def test_empty_folder_is_filled_and_a_failure_leaves_it(clips, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    source = probe(clips("plain.mp4"))
    with pytest.raises(RuntimeError):
        break_off(source, folder, RuntimeError("a bug"))
    assert (names_in(folder), names_in(tmp_path)) == ([], ["frames"])
    copy_clip(source, folder, duration=0.04)
    assert names_in(folder) == ["00000000.png"]


def test_folder_that_is_there_stays_the_same_folder(clips, tmp_path, monkeypatch):
    """It may be the working directory, or watched by another program."""
    folder = tmp_path / "frames"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for duration in (0.2, 0.08):
        copy_clip(probe(clips("plain.mp4")), ".", scale=1, duration=duration)
        assert names_in(Path()) == [f"{index:08d}.png" for index in range(round(duration * 25))]
    assert names_in(tmp_path) == ["frames"]


def test_old_frames_stay_until_the_new_ones_are_there(clips, tmp_path):
    source, folder = probe(clips("plain.mp4")), tmp_path / "frames"
    copy_clip(source, folder, scale=1, duration=0.08)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(RuntimeError):
        break_off(source, folder, RuntimeError("a bug"))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_folder_in_which_a_job_was_killed_is_written_to_again(clips, tmp_path):
    left = tmp_path / "frames" / ".frames.0123abcd.part"
    left.mkdir(parents=True)
    (left / "00000000.png").write_bytes(b"cut off")
    copy_clip(probe(clips("plain.mp4")), tmp_path / "frames", duration=0.04)
    assert names_in(tmp_path / "frames") == ["00000000.png"]  # what the killed job left is gone
    left.mkdir()
    (left / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        copy_clip(probe(clips("plain.mp4")), tmp_path / "frames", duration=0.04)


def finish_in_vain(source: ClipInfo, target: Path, spoil) -> tuple[str, Path]:
    """Write two frames, ``spoil`` the target's place, finish; what is said, and what is kept."""
    writing = open_writer(target, width=64, height=48, source=source)
    with pytest.raises(OutputError) as caught, writing as writer:  # noqa: PT012
        for index in range(2):
            writer.write(torch.ones(3, 48, 64), Fraction(index, 25), Fraction(1, 25))
        spoil()
    line = str(caught.value)
    assert "\n" not in line
    return line, Path(line.partition("; the result is in ")[2])


def test_finished_file_that_cannot_take_its_place_is_kept(clips, tmp_path):
    target = tmp_path / "a.mp4"
    line, kept = finish_in_vain(probe(clips("sound.mp4")), target, target.mkdir)
    assert "a.mp4 cannot be written: is a directory" in line
    assert probe(kept).num_frames == 2
    assert names_in(tmp_path) == sorted([kept.name, "a.mp4"])


def test_finished_folder_that_cannot_take_its_place_is_kept(clips, tmp_path):
    target = tmp_path / "frames"
    line, kept = finish_in_vain(probe(clips("plain.mp4")), target, target.touch)
    assert "frames cannot be written: not a directory" in line
    assert names_in(kept) == ["00000000.png", "00000001.png"]
    assert names_in(tmp_path) == sorted([kept.name, "frames"])


def test_folder_that_somebody_else_writes_to_meanwhile(clips, tmp_path):
    """Nothing of theirs is overwritten, the frames before stand, the new ones are kept aside."""
    source, folder = probe(clips("plain.mp4")), tmp_path / "frames"
    copy_clip(source, folder, scale=1, duration=0.04)
    before = (folder / "00000000.png").read_bytes()
    theirs = folder / "00000001.png"
    line, kept = finish_in_vain(source, folder, lambda: theirs.write_text("mine"))
    assert "frames cannot be written: file exists" in line
    assert theirs.read_text() == "mine"
    assert (folder / "00000000.png").read_bytes() == before
    assert names_in(folder) == [kept.name, "00000000.png", "00000001.png"]
    assert names_in(kept) == ["00000000.png", "00000001.png"]


MOUNTED = """
mount --bind "$1" "$2" || exit 3
"$3" -c '
import sys
from fractions import Fraction
import torch
from dloral.errors import OutputError
from dloral.video.probe import probe
from dloral.video.writer import open_writer

try:
    with open_writer(sys.argv[2], width=64, height=48, source=probe(sys.argv[1])) as writer:
        writer.write(torch.ones(3, 48, 64), Fraction(0), Fraction(1, 25))
except OutputError as error:
    print(error)
' "$4" "$2"
"""


def said_over_a_mount(clip: Path, other: Path, target: Path) -> str:
    """What is said of writing to ``target`` where ``other`` is mounted over it."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    call = ["unshare", "-rm", "sh", "-c", MOUNTED, "sh", other, target, sys.executable, clip]
    done = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=False)
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"may not mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_folder_that_is_a_mount_point_is_filled(clips, tmp_path):
    for name in ("disk", "frames"):
        (tmp_path / name).mkdir()
    assert said_over_a_mount(clips("plain.mp4"), tmp_path / "disk", tmp_path / "frames") == ""
    assert names_in(tmp_path / "disk") == ["00000000.png"]
    assert (names_in(tmp_path / "frames"), names_in(tmp_path)) == ([], ["disk", "frames"])


def test_file_that_is_a_mount_point_costs_no_result(clips, tmp_path):
    for name in ("disk.mp4", "a.mp4"):
        (tmp_path / name).write_text("there")
    said = said_over_a_mount(clips("plain.mp4"), tmp_path / "disk.mp4", tmp_path / "a.mp4")
    line, _, kept = said.partition("; the result is in ")
    assert line.endswith("a.mp4 cannot be written: device or resource busy")
    assert probe(kept).num_frames == 1


def test_source_frames_are_spared(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    Image.new("RGB", (8, 6), (10, 200, 30)).save(folder / "f.png")
    before = (folder / "f.png").read_bytes()
    (tmp_path / "link.png").symlink_to(folder / "f.png")
    for target in (folder / "f.png", tmp_path / "link.png"):
        with pytest.raises(OptionError, match="is part of the source; write to another name"):
            copy_clip(probe(folder), target)
    assert (folder / "f.png").read_bytes() == before
    copy_clip(probe(folder), tmp_path / "other.png")
    copy_clip(probe(folder), tmp_path / "other.png")


def test_source_picture_in_the_target_folder_is_spared(clips, tmp_path):
    copy_clip(probe(clips("plain.mp4")), tmp_path / "frames", duration=0.04)
    with pytest.raises(OptionError, match="is part of the source"):
        copy_clip(probe(tmp_path / "frames" / "00000000.png"), tmp_path / "frames")
