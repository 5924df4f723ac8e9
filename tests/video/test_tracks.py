"""Sound and subtitles beside the picture, whole and cut."""

import re
from fractions import Fraction

import av
import pytest

from dloral.video.probe import probe
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer
from tests.support.hostile import write_clip


def carry(source, target, start=0, duration=None, codec=None) -> list[str]:
    """Write the picture as it is and everything beside it; the notes."""
    codec = codec or ("vp9" if target.suffix == ".webm" else "h264")
    size = {"width": source.width, "height": source.height}
    part = {"start": start, "duration": duration}
    with (
        open_writer(target, source=source, codec=codec, **size, **part) as writer,
        read_frames(source, **part) as frames,
    ):
        for frame in frames:
            writer.write(frame.pixels, frame.time, frame.duration)
    return writer.notes


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("sound.mp4", ".mp4"),
        ("sound.mp4", ".mov"),
        ("sound.mkv", ".mp4"),
        ("sound.mkv", ".mkv"),
        ("sound.mov", ".mkv"),
        ("sound.mov", ".mov"),
        ("opus.webm", ".webm"),
        ("opus.webm", ".mkv"),
        ("opus.webm", ".mp4"),
        ("sound.avi", ".mp4"),
        ("sound.avi", ".mkv"),
        ("sound.mpg", ".mp4"),
        ("late.mkv", ".mp4"),
    ],
)
def test_packets_are_copied(clips, packet_hashes, tmp_path, name, suffix):
    target = tmp_path / f"a{suffix}"
    assert carry(probe(clips(name)), target) == []
    expected = packet_hashes(clips(name), "a")
    assert len(expected) > 20
    assert packet_hashes(target, "a") == expected


def test_only_the_hidden_run_up_is_left_out_of_matroska(clips, packet_hashes, tmp_path):
    """MP4 hides AAC's first packet by an edit list, which Matroska has not."""
    target = tmp_path / "a.mkv"
    carry(probe(clips("sound.mp4")), target)
    assert packet_hashes(target, "a") == packet_hashes(clips("sound.mp4"), "a")[1:]
    assert probe(target).start_time == 0


@pytest.mark.parametrize(
    ("name", "suffix", "codec"),
    [
        ("sound.mp4", ".webm", "opus"),
        ("opus.webm", ".mov", "aac"),
        ("sound.mov", ".mp4", "aac"),
        ("late.mkv", ".mov", "aac"),
    ],
)
def test_sound_is_encoded_anew_where_it_must(clips, sound_seconds, tmp_path, name, suffix, codec):
    source, target = probe(clips(name)), tmp_path / f"a{suffix}"
    notes = carry(source, target)
    assert len(notes) == 1
    assert f"sound re-encoded as {codec}" in notes[0]
    assert probe(target).audio_codecs == (codec,)
    # AAC comes in pieces of 1,024 samples: one of run-up and one that is filled up
    pieces = 2 * 1024 / 44100 + 0.001
    assert sound_seconds(target) == pytest.approx(sound_seconds(source.path), abs=pieces)


@pytest.fixture
def sound_seconds(ffmpeg):
    """Length of the decoded sound in seconds."""

    def seconds(path) -> float:
        text = ffmpeg("-i", str(path), "-map", "0:a", "-f", "framemd5", "-")
        unit = Fraction(re.search(r"#tb 0: (\d+/\d+)", text)[1])
        rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
        return float(sum(int(row[3]) for row in rows) * unit)

    return seconds


@pytest.fixture
def flash_and_beep(ffmpeg):
    """When the picture turns white and when the tone begins, by the program's clock."""

    def times(path) -> tuple[float, float]:
        white = ffmpeg(
            *["-copyts", "-i", str(path), "-map", "0:v", "-fps_mode", "passthrough", "-vf"],
            *["signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-", "-f", "null", "-"],
        )
        loud = ffmpeg(
            *["-copyts", "-i", str(path), "-map", "0:a", "-af"],
            "aformat=s16:48000:mono,asetnsamples=48,astats=metadata=1:reset=1,"
            "ametadata=print:key=lavfi.astats.Overall.Peak_level:file=-",
            *["-f", "null", "-"],
        )
        rows = re.findall(r"pts_time:(\S+)\n\S+YAVG=(\S+)", white)
        flash = next(float(time) for time, level in rows if float(level) > 125)
        rows = re.findall(r"pts_time:(\S+)\n\S+Peak_level=(\S+)", loud)
        beep = next(float(time) for time, level in rows if float(level) > -20)
        return flash, beep

    return times


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov"])
@pytest.mark.parametrize(
    ("start", "duration", "flash"), [(0, None, 1.5), (1.03, None, 0.45), (1.4, 0.7, 0.1)]
)
def test_sound_stays_with_the_picture(
    clips, flash_and_beep, sound_seconds, tmp_path, suffix, start, duration, flash
):
    target = tmp_path / f"a{suffix}"
    carry(probe(clips("beep.mkv")), target, start, duration)
    seen, heard = flash_and_beep(target)
    assert seen == pytest.approx(flash, abs=1e-4)
    assert heard == pytest.approx(seen, abs=0.002)
    length = 3 - start if duration is None else duration
    assert probe(target).duration == pytest.approx(length, abs=0.051)
    assert sound_seconds(target) == pytest.approx(length, abs=0.051)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
def test_sound_that_begins_late_begins_as_late(clips, ffmpeg, tmp_path, suffix):
    target = tmp_path / f"a{suffix}"
    carry(probe(clips("late.mkv")), target)
    text = ffmpeg("-copyts", "-i", str(target), "-map", "0:a", "-f", "framemd5", "-")
    unit = Fraction(re.search(r"#tb 0: (\d+/\d+)", text)[1])
    first = next(line for line in text.splitlines() if not line.startswith("#"))
    assert float(int(first.split(",")[2]) * unit) == pytest.approx(0.3, abs=0.03)


def subtitle_lines(ffmpeg, path) -> list[tuple[str, str]]:
    """Times and words of a file's first subtitle track."""
    text = ffmpeg("-i", str(path), "-map", "0:s:0", "-f", "srt", "-")
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    return [(block[1], re.sub(r"<[^>]*>|\{[^}]*\}", "", block[2])) for block in blocks]


@pytest.mark.parametrize("name", ["subtitled.mkv", "subtitled.mp4"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov"])
def test_subtitles_are_kept(clips, ffmpeg, tmp_path, name, suffix):
    target = tmp_path / f"a{suffix}"
    notes = carry(probe(clips(name)), target)
    assert subtitle_lines(ffmpeg, target) == [
        ("00:00:00,200 --> 00:00:00,600", "first line"),
        ("00:00:00,700 --> 00:00:00,900", "second line"),
    ]
    converted = probe(target).subtitle_codecs != probe(clips(name)).subtitle_codecs
    assert converted == any("subtitles converted" in note for note in notes)


def test_what_becomes_of_positions_is_said(clips, ffmpeg, tmp_path):
    source, target = tmp_path / "ass.mkv", tmp_path / "a.mp4"
    ffmpeg("-i", str(clips("subtitled.mkv")), "-c", "copy", "-c:s", "ass", str(source))
    assert carry(probe(source), target) == [
        "subtitles converted to mov_text without their positions: .mp4 cannot hold ass"
    ]
    assert carry(probe(source), tmp_path / "a.mkv") == []


def test_subtitles_are_cut(clips, ffmpeg, tmp_path):
    for suffix in (".mkv", ".mp4"):
        target = tmp_path / f"a{suffix}"
        carry(probe(clips("subtitled.mkv")), target, start=0.4, duration=0.4)
        assert subtitle_lines(ffmpeg, target) == [
            ("00:00:00,000 --> 00:00:00,200", "first line"),
            ("00:00:00,300 --> 00:00:00,400", "second line"),
        ]


TOGETHER = """1
00:00:00,100 --> 00:00:00,500
a

2
00:00:00,300 --> 00:00:00,700
<i>b</i>

3
00:00:00,700 --> 00:00:00,800
c

4
00:00:00,800 --> 00:00:00,900
d

5
00:00:00,800 --> 00:00:00,900
e
"""


def samples(path) -> list[tuple[float, float, str]]:
    """Begin, length and words of a file's subtitle samples."""
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(subtitles=0):
            if packet.size:
                times = [
                    round(float(t * packet.time_base), 3) for t in (packet.pts, packet.duration)
                ]
                length = int.from_bytes(bytes(packet)[:2], "big")
                found.append((*times, bytes(packet)[2 : 2 + length].decode()))
    return found


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_lines_of_the_same_time_are_shown_together(clips, ffmpeg, tmp_path, suffix):
    """Samples follow one another there, so each has all lines of its time, and none is empty but
    where nothing is shown."""
    source, target, again = tmp_path / "in.mkv", tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    (tmp_path / "lines.srt").write_text(TOGETHER)
    lines = ["-i", str(tmp_path / "lines.srt"), "-c", "copy"]
    ffmpeg("-i", str(clips("sound.mp4")), *lines, str(source))
    carry(probe(source), target)
    assert samples(target) == [
        *[(0, 0.1, ""), (0.1, 0.2, "a"), (0.3, 0.2, "a\nb"), (0.5, 0.2, "b")],
        *[(0.7, 0.1, "c"), (0.8, 0.1, "d\ne")],
    ]
    text = ffmpeg("-i", str(target), "-map", "0:s:0", "-f", "srt", "-")
    assert "a\n<i>b</i>\n" in text  # the style of one line is not that of another
    carry(probe(target), again)
    assert samples(again) == samples(target)
    carry(probe(source), again, start=0.4, duration=0.35)
    assert samples(again) == [(0, 0.1, "a\nb"), (0.1, 0.2, "b"), (0.3, 0.05, "c")]


def test_lines_hours_apart_keep_their_times(ffmpeg, tmp_path):
    source, lines = tmp_path / "in.mkv", tmp_path / "lines.srt"
    lines.write_text("1\n00:00:00,000 --> 00:00:01,000\na\n\n2\n03:00:00,000 --> 03:00:01,000\nb\n")
    picture = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=1/3600:d=14400", "-i", str(lines)]
    ffmpeg(*picture, "-c:v", "libx264", "-bf", "0", str(source))
    carry(probe(source), tmp_path / "a.mp4")
    assert samples(tmp_path / "a.mp4") == [(0, 1, "a"), (1, 10799, ""), (10800, 1, "b")]


def test_language_is_kept(clips, ffmpeg, tmp_path):
    import av

    for suffix in (".mkv", ".mp4"):
        carry(probe(clips("subtitled.mkv")), tmp_path / f"a{suffix}")
        with av.open(str(tmp_path / f"a{suffix}")) as container:
            assert container.streams.subtitles[0].metadata["language"] in ("nld", "dut")
            assert container.metadata["title"] == "A clip"


def test_pictures_as_subtitles_are_left_out_of_mp4_and_said(clips, ffmpeg, tmp_path):
    source = tmp_path / "in.mkv"
    recipe = ["-i", str(clips("subtitled.mkv")), "-map", "0", "-c", "copy", "-c:s", "dvdsub"]
    made = tmp_path / "dvd.mkv"
    try:
        ffmpeg(*recipe, str(made))
    except AssertionError:
        pytest.skip("this ffmpeg makes no picture subtitles from text")
    made.rename(source)
    notes = carry(probe(source), tmp_path / "a.mp4")
    assert any("subtitles left out" in note for note in notes)


def test_sound_longer_than_the_picture_is_kept_whole(clips, ffmpeg, packet_hashes, tmp_path):
    source = tmp_path / "in.mp4"
    long = ["-f", "lavfi", "-i", "sine=d=3"]
    ffmpeg("-i", str(clips("plain.mp4")), *long, "-c:v", "copy", "-c:a", "aac", str(source))
    carry(probe(source), tmp_path / "a.mp4")
    assert packet_hashes(tmp_path / "a.mp4", "a") == packet_hashes(source, "a")
    carry(probe(source), tmp_path / "b.mp4", duration=0.5)
    assert len(packet_hashes(tmp_path / "b.mp4", "a")) < 30


def test_several_sound_tracks(clips, ffmpeg, packet_hashes, tmp_path):
    source = tmp_path / "in.mkv"
    second = ["-f", "lavfi", "-i", "sine=f=900:d=1"]
    maps = ["-map", "0", "-map", "1:a", "-c", "copy", "-c:a:1", "libvorbis"]
    ffmpeg("-i", str(clips("sound.mkv")), *second, *maps, str(source))
    notes = carry(probe(source), tmp_path / "a.mp4")
    assert probe(tmp_path / "a.mp4").audio_codecs == ("aac", "aac")
    assert len(notes) == 1
    assert packet_hashes(tmp_path / "a.mp4", "a:0") == packet_hashes(source, "a:0")


def test_sound_that_cannot_be_decoded_is_left_out(clips, tmp_path):
    data = bytearray(clips("sound.mp4").read_bytes())
    with av.open(str(clips("sound.mp4"))) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    for place, size in places[3:30:3]:
        data[place : place + size] = bytes(255 - byte for byte in data[place : place + size])
    (tmp_path / "in.mp4").write_bytes(data)
    (note,) = carry(probe(tmp_path / "in.mp4"), tmp_path / "a.mp4")
    assert "damaged or repeated packets of sound" in note
    with av.open(str(tmp_path / "a.mp4")) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples > 1024 * (len(places) - 15)


def test_silence_is_bounded_by_the_picture_as_a_whole(tmp_path):
    """Sound of 0.1 s each nine seconds, without end: no gap alone is too long."""
    source = tmp_path / "in.mkv"
    write_clip(source, "matroska", [0, 40, 80, 120, 160], sound_at=tuple(range(0, 900, 9)))
    (encoded, lost) = carry(probe(source), tmp_path / "a.mp4")
    assert "re-encoded as aac" in encoded
    assert "98 damaged or repeated packets of sound" in lost
    with av.open(str(tmp_path / "a.mp4")) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert 9 < samples / 8000 < 10
