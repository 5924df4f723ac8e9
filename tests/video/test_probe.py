"""What probe says of good sources, and the one line it says of bad ones."""

import os
import socket
import struct
import threading
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dloral.errors import InputError
from dloral.video.known import source_notes
from dloral.video.probe import probe


def bad_line(path: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        probe(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("name", "codec", "frames", "fps"),
    [
        ("sound.mp4", "h264", 25, 25),
        ("sound.mkv", "h264", 25, 25),
        ("opus.webm", "vp9", 25, 25),
        ("sound.avi", "mpeg4", 25, 25),
        ("sound.mpg", "mpeg2video", 25, 25),
        ("sound.ts", "h264", 25, 25),
        ("flv1.flv", "flv1", 25, 25),
        ("plain.gif", "gif", 25, 25),
        ("vp8.webm", "vp8", 25, 25),
        ("ntsc.mp4", "h264", 30, Fraction(30000, 1001)),
    ],
)
def test_counts_frames_of_every_container(clips, name, codec, frames, fps):
    clip = probe(clips(name))
    assert (clip.kind, clip.codec, clip.num_frames, clip.fps) == ("video", codec, frames, fps)
    assert (clip.width, clip.height, clip.sample_aspect_ratio) == (64, 48, 1)
    assert clip.duration == pytest.approx(frames / fps, abs=0.001)


def test_average_rate_of_a_clip_with_a_variable_one(clips):
    clip = probe(clips("variable.mp4"))
    assert clip.duration == Fraction(632, 100)
    assert clip.fps == Fraction(2500, 632)


def test_names_sound_and_subtitles(clips):
    clip = probe(clips("subtitled.mkv"))
    assert (clip.has_audio, clip.audio_codecs, clip.subtitle_codecs) == (
        True,
        ("aac",),
        ("subrip",),
    )
    assert not probe(clips("plain.mp4")).has_audio


def test_rotation_exchanges_the_sides(clips):
    clip = probe(clips("rotated.mp4"))
    assert (clip.width, clip.height, clip.rotation) == (48, 64, 270)


def test_sample_aspect_and_depth(clips):
    assert probe(clips("anamorphic.mp4")).sample_aspect_ratio == Fraction(16, 11)
    clip = probe(clips("ten.mkv"))
    assert (clip.bit_depth, clip.pixel_format) == (10, "yuv420p10le")


def test_folder_in_natural_order_with_a_rate(tmp_path):
    for number in (10, 2, 1):
        Image.new("RGB", (8, 6)).save(tmp_path / f"f{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    clip = probe(tmp_path)
    assert (clip.kind, clip.num_frames, clip.fps, clip.width, clip.height) == (
        "folder",
        3,
        24,
        8,
        6,
    )
    assert probe(tmp_path, folder_fps=Fraction(30000, 1001)).duration == Fraction(3003, 30000)


def test_image_turned_by_exif(tmp_path):
    image = Image.new("RGB", (8, 6))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    clip = probe(tmp_path / "a.jpg")
    assert (clip.kind, clip.width, clip.height, clip.num_frames, clip.fps) == ("image", 6, 8, 1, 1)


def test_missing_empty_and_no_name(tmp_path):
    assert "no such file" in bad_line(tmp_path / "none.mp4")
    (tmp_path / "empty.mp4").touch()
    assert "is empty" in bad_line(tmp_path / "empty.mp4")
    assert "is not a file name" in bad_line("")
    assert "is not a file name" in bad_line("a\0b")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"just words\n" * 40, "holds text"),
        (bytes(4000), "zeros only"),
        (bytes(range(7, 256)) * 20, "damaged data or an unknown format"),
        (b"\x89PNG\r\n\x1a\n" + b"rubbish" * 9, "is not a readable image"),
    ],
)
def test_not_a_video(tmp_path, content, said):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert said in bad_line(path)


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ts"])
def test_playlists_open_nothing(clips, ffmpeg, tmp_path, suffix):
    part = tmp_path / "part0.ts"
    ffmpeg("-i", str(clips("plain.mp4")), "-c", "copy", str(part))
    assert probe(part).num_frames == 25, "the part itself is fine"
    texts = {
        "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n"
        f"{part}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{part.name}'\n",
        "dash": '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        '<Representation id="1" bandwidth="1"><BaseURL>part0.ts</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}{suffix}"
        path.write_text(text)
        assert "a playlist" in bad_line(path)


def test_no_address_is_contacted(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        calls = []

        def listen() -> None:
            try:
                calls.append(server.accept())
            except TimeoutError:
                return

        listener = threading.Thread(target=listen)
        listener.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4"
        assert "download it first" in bad_line(address)
        playlist = tmp_path / "a.mp4"
        playlist.write_text(f"#EXTM3U\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        bad_line(playlist)
        listener.join()
    assert not calls


@pytest.mark.parametrize(
    "name",
    [
        *("sound.mp4", "sound.mov", "sound.mkv", "opus.webm", "sound.avi", "plain.gif"),
    ],
)
@pytest.mark.parametrize("part", [0.02, 0.5, 0.97])
def test_cut_off_files_are_found_before_any_work(clips, tmp_path, name, part):
    whole = clips(name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * part)])
    assert "is cut off" in bad_line(path)


@pytest.mark.parametrize("length", [10**6, 2**55, 2**56 - 2], ids=["long", "longer", "longest"])
@pytest.mark.parametrize("element", [0, 1], ids=["header", "segment"])
def test_lengths_of_matroska_beyond_any_file_are_one_line(clips, tmp_path, element, length):
    """No position that a file promises is sought where none can be."""
    data = bytearray(clips("sound.mkv").read_bytes())
    at = (0, 5 + (data[4] & 0x7F))[element] + 4
    if element == 0:
        data[at : at + 1] = b"\x01" + length.to_bytes(7, "big")
    else:
        assert data[at] == 1  # eight bytes, as FFmpeg writes
        data[at + 1 : at + 8] = length.to_bytes(7, "big")
    path = tmp_path / "a.mkv"
    path.write_bytes(data)
    assert "is cut off" in bad_line(path)


def test_mpeg_is_read_to_its_break(clips, tmp_path):
    whole = clips("sound.ts").read_bytes()
    path = tmp_path / "a.ts"
    path.write_bytes(whole[: len(whole) // 2])
    assert 0 < probe(path).num_frames < 25


def test_sound_only_and_no_frames(clips, ffmpeg, tmp_path):
    assert "holds sound only" in bad_line(clips("soundonly.m4a"))
    empty = tmp_path / "zero.mp4"
    ffmpeg("-i", str(clips("plain.mp4")), "-vf", "select=0", "-c:v", "mpeg4", str(empty))
    assert "holds no" in bad_line(empty)


def test_folders_without_frames_and_with_mixed_sizes(tmp_path):
    assert "holds no frames" in bad_line(tmp_path)
    Image.new("RGB", (8, 6)).save(tmp_path / "1.png")
    Image.new("RGB", (8, 7)).save(tmp_path / "2.png")
    assert "1.png is 8x6, 2.png is 8x7" in bad_line(tmp_path)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20000, 4), (9000, 9000), (16000, 16000), (70000, 70000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_absurd_sizes(tmp_path, size):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(*size))
    assert "at most" in bad_line(path)


def test_absurd_video_size_and_duration(ffmpeg, tmp_path):
    wide, long = tmp_path / "wide.mkv", tmp_path / "long.mkv"
    ffmpeg("-f", "lavfi", "-i", "color=s=16400x16:d=0.04", "-c:v", "ffv1", str(wide))
    assert "16400x16" in bad_line(wide)
    slow = ["-vf", "setpts=N*2000000/TB", "-fps_mode", "vfr"]
    ffmpeg("-f", "lavfi", "-i", "color=s=16x16:r=1:d=3", *slow, "-c:v", "ffv1", str(long))
    assert "at most 31 are read" in bad_line(long)


def test_tables_that_claim_more_samples_than_there_are_bytes(clips, tmp_path):
    data = bytearray(clips("plain.mp4").read_bytes())
    at = data.index(b"stsz")
    data[at + 8 : at + 16] = (1).to_bytes(4, "big") + (80_000_000).to_bytes(4, "big")
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    assert "claim 80000000 samples" in bad_line(path)


def test_devices_and_pipes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "a device or a pipe" in bad_line(tmp_path / "pipe")
    assert "a device or a pipe" in bad_line("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process with another user")
def test_unreadable_file_and_folder(clips, tmp_path):
    """As an ordinary user; root may read everything."""
    secret = tmp_path / "a.mp4"
    secret.write_bytes(clips("plain.mp4").read_bytes())
    folder = tmp_path / "frames"
    folder.mkdir()
    secret.chmod(0)
    folder.chmod(0)
    listed = tmp_path / "listed"
    listed.mkdir()
    Image.new("RGB", (8, 6)).save(listed / "1.png")
    listed.chmod(0o444)  # its names may be read, its files may not be looked at
    for parent in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            for path in (secret, folder, listed):
                try:
                    probe(path)
                except InputError as error:
                    said += f"{error}\n"
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.waitpid(child, 0)
    lines = os.read(reading, 10_000).decode().splitlines()
    listed.chmod(0o755)
    assert len(lines) == 3
    assert all("permission denied" in line for line in lines)


def test_gray_and_deep_images(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(tmp_path / "deep.png")
    clip = probe(tmp_path / "deep.png")
    assert (clip.width, clip.height, clip.bit_depth) == (5, 4, 16)


def test_a_damaged_end_of_matroska_is_said(ffmpeg, tmp_path):
    path = tmp_path / "a.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=16x16:r=10:d=4", "-c:v", "ffv1", str(path))
    assert source_notes(probe(path), 0, "scale") == []
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle:-500] = b"\xff" * len(data[middle:-500])
    path.write_bytes(data)
    (note,) = source_notes(probe(path), 0, "scale")
    assert "longer than can be read" in note


@pytest.mark.parametrize(
    "kind", ["subtitle", "unknown subtitle", "second picture", "unknown sound"]
)
def test_a_track_that_outlasts_the_picture_is_no_damage(clips, ffmpeg, tmp_path, kind):
    path, lines = tmp_path / "a.mkv", tmp_path / "lines.srt"
    lines.write_text("1\n00:00:00,200 --> 00:00:08,000\na line\n")
    other = {
        "subtitle": ["-i", str(lines), "-c:s", "srt"],
        "second picture": ["-f", "lavfi", "-i", "testsrc2=s=16x16:r=5:d=8"],
        "sound": ["-f", "lavfi", "-i", "sine=d=8", "-c:a", "aac"],
    }[kind.removeprefix("unknown ")]
    ffmpeg(
        "-i", str(clips("plain.mp4")), *other, "-map", "0", "-map", "1", "-c:v", "ffv1", str(path)
    )
    if kind.startswith("unknown"):
        data = path.read_bytes()
        assert data.count(b"A_AAC") + data.count(b"S_TEXT/UTF8") == 1
        path.write_bytes(data.replace(b"A_AAC", b"A_XXX").replace(b"S_TEXT/UTF8", b"S_TEXT/XXXX"))
    assert source_notes(probe(path), 0, "refuse") == []


def test_a_matroska_with_sound_and_subtitles_that_breaks_is_damaged(clips, ffmpeg, tmp_path):
    path = tmp_path / "a.mkv"
    again = ["-stream_loop", "3", "-i", str(clips("subtitled.mkv")), "-map", "0", "-c", "copy"]
    ffmpeg(*again, "-cluster_time_limit", "200", str(path))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    (note,) = source_notes(probe(path), 0, "refuse")
    assert "the source is damaged: it claims to last 2." in note
