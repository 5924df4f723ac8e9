"""Time codes and chapters."""

from fractions import Fraction

import av
import pytest

from dloral.video.extras import timecode_at
from tests.support.runs import notes_of

CHAPTERS = """;FFMETADATA1
[CHAPTER]
TIMEBASE=1/1000
START=0
END=1000
title=One
"""


@pytest.mark.parametrize(
    ("code", "fps", "seconds", "later"),
    [
        ("01:02:03:04", Fraction(25), Fraction(0), "01:02:03:04"),
        ("01:02:03:04", Fraction(25), Fraction(1), "01:02:04:04"),
        ("23:59:59:24", Fraction(25), Fraction(1, 25), "00:00:00:00"),
        ("00:00:59;29", Fraction(30000, 1001), Fraction(1001, 30000), "00:01:00;02"),
        ("00:09:59;29", Fraction(30000, 1001), Fraction(1001, 30000), "00:10:00;00"),
        ("00:00:00;00", Fraction(30000, 1001), Fraction(17982 * 1001, 30000), "00:10:00;00"),
        ("00:00:00:00", Fraction(60), Fraction(1, 2), "00:00:00:30"),
        ("00:00:00:00", Fraction(12), Fraction(0), None),
        ("00:00:00:0", Fraction(10), Fraction(0), None),
        ("00:00:00:119", Fraction(120), Fraction(1, 120), "00:00:01:000"),
    ],
)
def test_time_codes_count_frames(code, fps, seconds, later):
    assert timecode_at(code, fps, seconds) == later


@pytest.mark.parametrize(
    ("rate", "code", "said"),
    [(120, "01:02:03:004", ()), (10, None, ("time code left out: there is none for 10 fps",))],
)
def test_a_time_code_of_any_rate_is_kept_or_said_to_be_lost(ffmpeg, tmp_path, rate, code, said):
    source, target = tmp_path / "in.mov", tmp_path / "a.mov"
    picture = ["-f", "lavfi", "-i", f"testsrc2=s=64x48:r={rate}:d=0.1", "-c:v", "libx264"]
    ffmpeg(*picture, "-timecode", "01:02:03:04", str(source))
    assert notes_of(source, target) == said
    with av.open(str(target)) as container:
        assert container.streams.video[0].metadata.get("timecode") == code


@pytest.fixture
def chaptered(clips, ffmpeg, tmp_path):
    """Makes a file with chapters, and a second video track if there is to be one."""

    def made(name, second=False):
        (tmp_path / "chapters.txt").write_text(CHAPTERS)
        inputs = ["-i", str(clips("plain.mp4")), "-i", str(tmp_path / "chapters.txt")]
        if second:
            inputs += ["-f", "lavfi", "-i", "testsrc2=s=32x32:r=2:d=1"]
        maps = ["-map", "0:v", *(["-map", "2:v"] if second else []), "-map_chapters", "1"]
        codecs = ["-c:v:0", "copy", "-c:v:1", "mjpeg"]
        ffmpeg(*inputs, *maps, *codecs, str(tmp_path / name))
        return tmp_path / name

    return made


@pytest.mark.parametrize(("name", "suffix"), [("in.mp4", ".mp4"), ("in.mov", ".mkv")])
def test_the_names_of_chapters_are_no_data_track(chaptered, tmp_path, name, suffix):
    """QuickTime keeps them in a track of their own."""
    target = tmp_path / f"a{suffix}"
    assert notes_of(chaptered(name), target) == ()
    with av.open(str(target)) as container:
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One"]


def test_pictures_of_chapters_are_no_cover(chaptered, tmp_path):
    source = chaptered("in.mp4", second=True)
    data, reference = source.read_bytes(), b"chap\0\0\0"
    assert reference + b"\3" in data  # to the track of their names
    source.write_bytes(data.replace(reference + b"\3", reference + b"\2"))
    assert notes_of(source, tmp_path / "a.mkv")[-1] == "pictures of chapters left out"
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video", "subtitle"]
