"""What is written: size, frames, times; and nothing where the frames are missing or damaged."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import names_in
from PIL import Image

from dloral.errors import InputError, OptionError, OutputError
from dloral.video.images import load_image
from dloral.video.probe import probe
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer
from tests.video.conftest import copy_clip


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
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("target", ["a.mp4", "a.mkv", "a.webm", "frames", "a.png"])
def test_nothing_written_is_an_error(clips, tmp_path, target):
    source = probe(clips("sound.mp4"))
    if target == "a.png":
        Image.new("RGB", (4, 4)).save(tmp_path / "in.png")
        source = probe(tmp_path / "in.png")
    before = names_in(tmp_path)
    codec = "vp9" if target == "a.webm" else "h264"
    with (
        pytest.raises(OutputError, match="no frame"),
        open_writer(tmp_path / target, width=64, height=48, source=source, codec=codec),
    ):
        pass
    assert names_in(tmp_path) == before


def test_folder_of_frames(clips, tmp_path):
    source = probe(clips("sound.mp4"))
    notes = copy_clip(source, tmp_path / "frames", scale=1, duration=0.2)
    assert names_in(tmp_path / "frames") == [f"{index:08d}.png" for index in range(5)]
    assert notes == ["a folder of frames keeps no sound"]
    with read_frames(source) as frames:
        first = next(frames).pixels
    assert (load_image(tmp_path / "frames" / "00000000.png") - first).abs().max() < 0.5 / 255
    copy_clip(source, f"{tmp_path}/frames/", scale=1, duration=0.08)
    assert names_in(tmp_path / "frames") == ["00000000.png", "00000001.png"], "ours are replaced"
    assert names_in(tmp_path) == ["frames"]


def test_folder_of_deep_frames_from_a_deep_clip(clips, tmp_path):
    source = probe(clips("ten.mkv"))
    copy_clip(source, tmp_path / "frames", scale=1, bit_depth=10, duration=0.04)
    with read_frames(source) as frames:
        first = next(frames).pixels
    clip = probe(tmp_path / "frames")
    assert clip.bit_depth == 16
    difference = load_image(tmp_path / "frames" / "00000000.png") - first
    assert difference.abs().max() < 1 / 65535


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_picture_to_picture(tmp_path, suffix):
    pixels = np.tile(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], (16, 1, 3))
    Image.fromarray(pixels).save(tmp_path / "in.png")
    source = probe(tmp_path / "in.png")
    assert copy_clip(source, tmp_path / f"out{suffix}") == []
    result = load_image(tmp_path / f"out{suffix}")
    assert result.shape == (3, 32, 48)
    assert (result[:, ::2, ::2] * 255 - torch.from_numpy(pixels).permute(2, 0, 1)).abs().max() < 4
    assert names_in(tmp_path) == ["in.png", f"out{suffix}"]


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
    assert names_in(tmp_path) == ["in.mkv"]
