"""Frames and their times, against what the ffmpeg program decodes."""

import subprocess
from fractions import Fraction
from itertools import pairwise

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from dloral.errors import InputError
from dloral.video.known import source_notes
from dloral.video.probe import probe
from dloral.video.reader import read_frames

VIDEOS = [
    *("sound.mp4", "sound.mov", "sound.mkv", "opus.webm", "sound.avi", "h264.avi", "sound.mpg"),
    *("sound.ts", "flv1.flv", "plain.gif", "vp8.webm", "rotated.mp4", "ten.mkv", "odd.mkv"),
    *("ntsc.mp4", "variable.mp4", "variable.mkv"),
]


def ffmpeg_rgb(path, height: int, width: int, siting: str) -> np.ndarray:
    """All frames as zimg converts them in the program: uint8 (T,H,W,3), as stored."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-noautorotate", "-i", str(path)]
    if path.suffix != ".gif":
        chain = f"zscale=min=170m:rin=limited:cin={siting}:m=gbr:r=full:f=bilinear,format=gbrp"
        command += ["-vf", chain]
    command += ["-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("name", VIDEOS)
def test_same_frames_at_the_same_times_as_ffmpeg(clips, frame_times, name):
    clip = probe(clips(name))
    expected_times = frame_times(clip.path)
    siting = "center" if clip.codec == "flv1" else "left"
    size = (clip.width, clip.height) if clip.rotation else (clip.height, clip.width)
    expected = ffmpeg_rgb(clip.path, *size, siting)
    with read_frames(clip) as frames:
        for count, frame in enumerate(frames):
            assert frame.index == count
            assert frame.time == expected_times[count] - expected_times[0]
            assert frame.pixels.shape == (3, clip.height, clip.width)
            stored = torch.rot90(frame.pixels, clip.rotation // 90, (1, 2))
            difference = stored.permute(1, 2, 0).numpy() * 255 - expected[count]
            assert np.abs(difference).max() < 0.75  # the program rounds to 8 bits
    assert count + 1 == len(expected_times) == clip.num_frames
    assert frame.time + frame.duration == clip.duration


def test_durations_fill_the_time_between_frames(clips):
    with read_frames(clips("variable.mkv")) as frames:
        read = list(frames)
    for frame, following in pairwise(read):
        assert frame.time + frame.duration == following.time
    assert len({frame.duration for frame in read}) > 5


def test_rotated_pixels_stand_upright(clips):
    with read_frames(clips("sound.mp4")) as frames:
        stored = next(frames).pixels
    with read_frames(clips("rotated.mp4")) as frames:
        upright = next(frames).pixels
    assert torch.equal(upright, torch.rot90(stored, 1, (1, 2)))


@pytest.mark.parametrize("flip", ["hflip", "vflip"])
def test_mirrored_display_matrix(clips, ffmpeg, tmp_path, flip):
    path = tmp_path / "mirrored.mp4"
    ffmpeg(f"-display_{flip}", "-i", str(clips("plain.mp4")), "-c", "copy", str(path))
    with read_frames(clips("plain.mp4")) as frames:
        stored = next(frames).pixels
    with read_frames(path) as frames:
        shown = next(frames).pixels
    assert torch.equal(shown, stored.flip(2 if flip == "hflip" else 1))


@pytest.mark.parametrize("name", ["sound.mp4", "sound.mkv", "sound.avi", "sound.mpg", "plain.gif"])
@pytest.mark.parametrize(("start", "duration"), [(0.2, 0.4), (0.5, None), (0, 0.1), (0.31, 0.02)])
def test_part_of_a_clip_is_the_same_as_in_the_whole(clips, name, start, duration):
    with read_frames(clips(name)) as frames:
        whole = list(frames)
    end = 10 if duration is None else Fraction(str(start)) + Fraction(str(duration))
    expected = [frame for frame in whole if Fraction(str(start)) <= frame.time < end]
    with read_frames(clips(name), start, duration) as frames:
        part = list(frames)
    assert [frame.time for frame in part] == [frame.time for frame in expected]
    assert [frame.duration for frame in part] == [frame.duration for frame in expected]
    for got, wanted in zip(part, expected, strict=True):
        assert torch.equal(got.pixels, wanted.pixels)


@pytest.mark.parametrize("name", ["sound.mp4", "sound.mkv", "sound.mpg", "plain.gif"])
@pytest.mark.parametrize("start", [50, 999_999_999_999_999])
def test_nothing_behind_the_end(clips, name, start):
    with read_frames(clips(name), start=start) as frames:
        assert list(frames) == []


def test_gif_with_disposal_transparency_and_variable_delays(tmp_path):
    pictures = []
    for number in range(4):
        picture = Image.new("RGBA", (16, 12), (0, 0, 0, 0))
        picture.paste((250, 20, 20, 255), (number * 4, 0, number * 4 + 4, 12))
        pictures.append(picture)
    path = tmp_path / "a.gif"
    delays = [50, 100, 30, 200]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=delays, disposal=2)
    with read_frames(path) as frames:
        read = list(frames)
    assert [frame.duration for frame in read] == [Fraction(delay, 1000) for delay in delays]
    for number, frame in enumerate(read):
        red = frame.pixels[1] < 0.5
        assert red[:, number * 4 : number * 4 + 4].all()
        assert red.sum() == 48, "the bar before is gone"
        assert (frame.pixels[:, ~red] == 1).all(), "transparent is shown over white"


def test_folder_in_order(tmp_path):
    for number in (1, 2, 10):
        Image.new("RGB", (6, 4), (number * 20, 0, 0)).save(tmp_path / f"f{number}.png")
    with read_frames(tmp_path, start=Fraction(1, 24)) as frames:
        read = list(frames)
    assert [round(frame.pixels[0, 0, 0].item() * 255) for frame in read] == [40, 200]
    assert [frame.time for frame in read] == [Fraction(1, 24), Fraction(2, 24)]
    assert read[0].duration == Fraction(1, 24)


def test_damaged_frame_is_named_by_its_time(clips, ffmpeg, tmp_path):
    frames = tmp_path / "frames.mkv"
    coding = ["-c:v", "png", "-pred", "mixed"]
    ffmpeg("-i", str(clips("plain.mp4")), *coding, str(frames))
    data = bytearray(frames.read_bytes())
    at = data.find(b"IHDR", len(data) // 2)
    data[at : at + 13] = b"\xff" * 13
    frames.write_bytes(data)
    with (
        pytest.raises(InputError, match=r"cannot be decoded after 0\.\d\d s") as caught,
        read_frames(frames) as read,
    ):
        for _ in read:
            pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pixels", ["rgba64be", "ya16be"])
def test_what_ffmpeg_cannot_decode_is_not_called_damaged(clips, ffmpeg, tmp_path, pixels):
    """Its APNG decoder leaves out 16 bits with transparency."""
    path = tmp_path / "deep.apng"
    options = ["-vf", f"format={pixels}", "-f", "apng"]
    ffmpeg("-i", str(clips("plain.mp4")), *options, str(path))
    with (
        pytest.raises(InputError, match="ffmpeg cannot decode; convert it first") as caught,
        read_frames(path) as frames,
    ):
        list(frames)
    assert "damaged" not in str(caught.value)


def test_change_of_size_is_known_before_the_work(clips, ffmpeg, tmp_path):
    small, both = tmp_path / "small.ts", tmp_path / "both.ts"
    first = tmp_path / "first.ts"
    ffmpeg("-i", str(clips("plain.mp4")), "-c:v", "mpeg2video", str(first))
    shift = ["-output_ts_offset", "1.1"]
    ffmpeg("-i", str(clips("plain.mp4")), "-s", "32x32", "-c:v", "mpeg2video", *shift, str(small))
    both.write_bytes(first.read_bytes() + small.read_bytes())
    clip = probe(both)
    (change,) = clip.size_changes
    assert (change.width, change.height) == (32, 32)
    assert float(change.time) == pytest.approx(1.1, abs=0.05)
    with pytest.raises(InputError, match="64x48 before, 32x32 there"):
        source_notes(clip, 0, "refuse")
    assert "scaled to the first size" in source_notes(clip, 0, "scale")[0]
    with read_frames(both) as frames:
        assert {tuple(frame.pixels.shape) for frame in frames} == {(3, 48, 64)}


def test_file_is_closed_when_reading_stops_early(clips, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(clips("plain.mp4").read_bytes())
    with read_frames(path) as frames:
        next(frames)
    open_files = {str(link.readlink()) for link in _open_links()}
    assert str(path) not in open_files


def _open_links():
    from pathlib import Path

    return [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
