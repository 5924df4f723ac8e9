"""What is written: size, frames, times, tags, sound; and that it is whole or not there at all."""

import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dloral.errors import InputError, OptionError, OutputError
from dloral.video.images import load_image
from dloral.video.probe import ClipInfo, probe
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer


def copy_clip(source: ClipInfo, target: Path, scale: int = 2, start=0, duration=None, **options):
    """Write ``source`` enlarged by repeating pixels; the writer's notes."""
    height, width = source.height * scale, source.width * scale
    writing = open_writer(
        target,
        width=width,
        height=height,
        source=source,
        start=start,
        duration=duration,
        **options,
    )
    with writing as writer, read_frames(source, start, duration) as frames:
        for frame in frames:
            enlarged = F.interpolate(frame.pixels[None], (height, width))[0]
            writer.write(enlarged, frame.time, frame.duration)
    return writer.notes


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("suffix", "codec", "depth"),
    [
        (".mp4", "h264", 8),
        (".mp4", "h265", 10),
        (".mkv", "vp9", 8),
        (".mov", "h264", 10),
        (".mov", "h265", 8),
        (".mov", "prores", 8),
        (".mkv", "ffv1", 8),
        (".mkv", "ffv1", 10),
        (".mkv", "prores", 10),
        (".webm", "vp9", 8),
    ],
)
@pytest.mark.parametrize("name", ["variable.mp4", "odd.mkv"])
def test_size_frames_and_times(clips, frame_times, tmp_path, suffix, codec, depth, name):
    source = probe(clips(name))
    target = tmp_path / f"a{suffix}"
    copy_clip(source, target, scale=1, codec=codec, bit_depth=depth)
    written = probe(target)
    assert (written.width, written.height) == (source.width, source.height)
    assert written.bit_depth == (10 if codec == "prores" else depth)
    expected, times = frame_times(source.path), frame_times(target)
    assert times[0] == 0
    assert len(times) == source.num_frames
    rounding = Fraction(1, 2000) if suffix in (".mkv", ".webm") else 0  # Matroska: milliseconds
    for got, wanted in zip(times, expected, strict=True):
        assert abs(got - (wanted - expected[0])) <= rounding
    assert abs(written.duration - source.duration) <= 2 * rounding
    with read_frames(source) as originals, read_frames(target) as results:
        for original, result in zip(originals, results, strict=True):
            assert (original.pixels - result.pixels).abs().mean() < 0.03


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("name", ["ntsc.mp4", "plain.gif", "sound.avi", "sound.mpg"])
def test_rate_and_times_of_other_sources(clips, frame_times, tmp_path, suffix, name):
    source, target = probe(clips(name)), tmp_path / f"a{suffix}"
    copy_clip(source, target)
    written = probe(target)
    assert (written.fps, written.num_frames) == (source.fps, source.num_frames)
    with read_frames(source) as frames:
        expected = [frame.time for frame in frames]
    rounding = Fraction(1, 2000) if suffix == ".mkv" else 0
    assert max(abs(a - b) for a, b in zip(frame_times(target), expected, strict=True)) <= rounding


def test_upright_with_its_sample_aspect(clips, tmp_path):
    copy_clip(probe(clips("rotated.mp4")), tmp_path / "a.mp4")
    written = probe(tmp_path / "a.mp4")
    assert (written.width, written.height, written.rotation) == (96, 128, 0)
    for suffix in (".mp4", ".mkv", ".mov"):
        copy_clip(probe(clips("anamorphic.mp4")), tmp_path / f"b{suffix}")
        assert probe(tmp_path / f"b{suffix}").sample_aspect_ratio == Fraction(16, 11)


def test_odd_sizes_are_said(clips, tmp_path):
    notes = copy_clip(probe(clips("odd.mkv")), tmp_path / "a.mp4", scale=1)
    assert any("63x47 is odd" in note for note in notes)
    assert probe(tmp_path / "a.mp4").pixel_format == "yuv444p"
    assert copy_clip(probe(clips("odd.mkv")), tmp_path / "a.mp4", scale=2) == []
    assert probe(tmp_path / "a.mp4").pixel_format == "yuv420p"


def test_header_of_mp4_comes_first(clips, tmp_path):
    for suffix in (".mp4", ".mov"):
        copy_clip(probe(clips("sound.mp4")), tmp_path / f"a{suffix}")
        data = (tmp_path / f"a{suffix}").read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")


def test_crf_changes_the_size(clips, tmp_path):
    sizes = []
    for crf in (5, 30):
        copy_clip(probe(clips("plain.mp4")), tmp_path / "a.mp4", crf=crf)
        sizes.append((tmp_path / "a.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]


def test_ffv1_is_lossless(clips, tmp_path):
    source = probe(clips("plain.mp4"))
    copy_clip(source, tmp_path / "a.mkv", scale=1, codec="ffv1")
    with read_frames(source) as originals, read_frames(tmp_path / "a.mkv") as results:
        for original, result in zip(originals, results, strict=True):
            assert torch.equal((original.pixels * 255).round(), (result.pixels * 255).round())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("a.webm", {"codec": "h264"}, "cannot hold h264"),
        ("a.mp4", {"codec": "prores"}, "cannot hold prores"),
        ("a.mp4", {"codec": "ffv1"}, "cannot hold ffv1"),
        ("a.mp4", {"codec": "mjpeg"}, "choose from h264"),
        ("a.mp4", {"crf": 60}, "0 (best) to 51"),
        ("a.mov", {"codec": "prores", "crf": 10}, "has no crf"),
        ("a.avi", {}, ".avi is not written"),
        ("a.png", {}, "holds one picture"),
        ("", {}, "is not a file name"),
        ("a.mp4", {"width": 0}, "0x96"),
        ("a.mp4", {"width": 20000}, "20000x96"),
    ],
)
def test_wrong_choices(clips, tmp_path, name, options, said):
    settings = {"width": 128, "height": 96, "source": probe(clips("plain.mp4")), **options}
    with pytest.raises(OptionError) as caught:
        open_writer(str(tmp_path / name) if name else "", **settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == []


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
    before = listing(folder)
    with open_writer(target, width=64, height=48, source=source) as writer:
        for index in range(3):
            writer.write(torch.zeros(3, 48, 64), Fraction(index, 25), Fraction(1, 25))
        assert len(listing(folder)) == len(before) + 1
        raise error


@pytest.mark.parametrize("target", ["a.mp4", "a.mkv", "frames"])
@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), GeneratorExit()])
def test_cancelled_job_leaves_nothing(clips, tmp_path, target, error):
    with pytest.raises(type(error)):
        break_off(probe(clips("sound.mp4")), tmp_path / target, error)
    assert listing(tmp_path) == []


def test_failed_job_leaves_the_old_file(clips, tmp_path):
    target = tmp_path / "a.mp4"
    target.write_text("old")
    with pytest.raises(RuntimeError):
        break_off(probe(clips("sound.mp4")), target, RuntimeError("a bug"))
    assert target.read_text() == "old"
    assert listing(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("target", ["a.mp4", "a.mkv", "a.webm", "frames", "a.png"])
def test_nothing_written_is_an_error(clips, tmp_path, target):
    source = probe(clips("sound.mp4"))
    if target == "a.png":
        Image.new("RGB", (4, 4)).save(tmp_path / "in.png")
        source = probe(tmp_path / "in.png")
    before = listing(tmp_path)
    codec = "vp9" if target == "a.webm" else "h264"
    with (
        pytest.raises(OutputError, match="no frame"),
        open_writer(tmp_path / target, width=64, height=48, source=source, codec=codec),
    ):
        pass
    assert listing(tmp_path) == before


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
    assert listing(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "old"


@pytest.mark.parametrize("target", ["a.mp4", "frames"])
def test_folder_without_permission(clips, tmp_path, target):
    tmp_path.chmod(0o555)
    said = said_by(NO_PERMISSION, clips("plain.mp4"), tmp_path / target)
    assert "cannot be written: permission denied" in said


def test_folder_of_frames(clips, tmp_path):
    source = probe(clips("sound.mp4"))
    notes = copy_clip(source, tmp_path / "frames", scale=1, duration=0.2)
    assert listing(tmp_path / "frames") == [f"{index:08d}.png" for index in range(5)]
    assert notes == ["a folder of frames keeps no sound"]
    with read_frames(source) as frames:
        first = next(frames).pixels
    assert (load_image(tmp_path / "frames" / "00000000.png") - first).abs().max() < 0.5 / 255
    copy_clip(source, f"{tmp_path}/frames/", scale=1, duration=0.08)
    assert listing(tmp_path / "frames") == ["00000000.png", "00000001.png"], "ours are replaced"
    assert listing(tmp_path) == ["frames"]


def test_folder_of_deep_frames_from_a_deep_clip(clips, tmp_path):
    source = probe(clips("ten.mkv"))
    copy_clip(source, tmp_path / "frames", scale=1, bit_depth=10, duration=0.04)
    with read_frames(source) as frames:
        first = next(frames).pixels
    clip = probe(tmp_path / "frames")
    assert clip.bit_depth == 16
    difference = load_image(tmp_path / "frames" / "00000000.png") - first
    assert difference.abs().max() < 1 / 65535


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
    assert listing(folder) == [name]
    assert listing(tmp_path) == ["frames"]


def test_empty_folder_is_filled_and_a_failure_leaves_it(clips, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    source = probe(clips("plain.mp4"))
    with pytest.raises(RuntimeError):
        break_off(source, folder, RuntimeError("a bug"))
    assert (listing(folder), listing(tmp_path)) == ([], ["frames"])
    copy_clip(source, folder, duration=0.04)
    assert listing(folder) == ["00000000.png"]


def test_folder_that_is_there_stays_the_same_folder(clips, tmp_path, monkeypatch):
    """It may be the working directory, or watched by another program."""
    folder = tmp_path / "frames"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for duration in (0.2, 0.08):
        copy_clip(probe(clips("plain.mp4")), ".", scale=1, duration=duration)
        assert listing(Path()) == [f"{index:08d}.png" for index in range(round(duration * 25))]
    assert listing(tmp_path) == ["frames"]


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
    assert listing(tmp_path / "frames") == ["00000000.png"]  # what the killed job left is gone
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
    assert listing(tmp_path) == sorted([kept.name, "a.mp4"])


def test_finished_folder_that_cannot_take_its_place_is_kept(clips, tmp_path):
    target = tmp_path / "frames"
    line, kept = finish_in_vain(probe(clips("plain.mp4")), target, target.touch)
    assert "frames cannot be written: not a directory" in line
    assert listing(kept) == ["00000000.png", "00000001.png"]
    assert listing(tmp_path) == sorted([kept.name, "frames"])


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
    assert listing(folder) == [kept.name, "00000000.png", "00000001.png"]
    assert listing(kept) == ["00000000.png", "00000001.png"]


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
    assert listing(tmp_path / "disk") == ["00000000.png"]
    assert (listing(tmp_path / "frames"), listing(tmp_path)) == ([], ["disk", "frames"])


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


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_picture_to_picture(tmp_path, suffix):
    pixels = np.tile(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], (16, 1, 3))
    Image.fromarray(pixels).save(tmp_path / "in.png")
    source = probe(tmp_path / "in.png")
    assert copy_clip(source, tmp_path / f"out{suffix}") == []
    result = load_image(tmp_path / f"out{suffix}")
    assert result.shape == (3, 32, 48)
    assert (result[:, ::2, ::2] * 255 - torch.from_numpy(pixels).permute(2, 0, 1)).abs().max() < 4
    assert listing(tmp_path) == ["in.png", f"out{suffix}"]


def test_picture_and_folder_to_video(tmp_path):
    Image.new("RGB", (16, 12), (10, 200, 30)).save(tmp_path / "in.png")
    copy_clip(probe(tmp_path / "in.png"), tmp_path / "a.mp4")
    assert (probe(tmp_path / "a.mp4").num_frames, probe(tmp_path / "a.mp4").duration) == (1, 1)
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(7):
        Image.new("RGB", (16, 12), (index * 30, 0, 0)).save(folder / f"{index}.png")
    copy_clip(probe(folder, folder_fps=Fraction(30000, 1001)), tmp_path / "b.mp4")
    written = probe(tmp_path / "b.mp4")
    assert (written.num_frames, written.fps) == (7, Fraction(30000, 1001))


def test_damaged_input_in_the_middle_leaves_nothing(clips, ffmpeg, tmp_path):
    path = tmp_path / "in.mkv"
    ffmpeg("-i", str(clips("plain.mp4")), "-c:v", "png", str(path))
    data = bytearray(path.read_bytes())
    at = data.find(b"IHDR", len(data) // 2)
    data[at : at + 13] = b"\xff" * 13
    path.write_bytes(data)
    with pytest.raises(InputError):
        copy_clip(probe(path), tmp_path / "out.mp4")
    assert listing(tmp_path) == ["in.mkv"]
