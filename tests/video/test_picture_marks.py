"""Marks of the picture: 3D, spherical, Dolby Vision, closed captions. Kept, or said to be lost."""

import struct
from pathlib import Path

import av
import pytest

from dloral.video.probe import probe
from tests.support.runs import notes_of

STEREO = "3D layout left out"
SPHERICAL = "360-degree metadata left out"


def box(kind: bytes, *body: bytes) -> bytes:
    content = b"".join(body)
    return struct.pack(">I", 8 + len(content)) + kind + content


HEADER = bytes(4)  # version and flags
IN_360 = box(
    b"sv3d",
    box(b"svhd", HEADER, b"\0"),
    box(b"proj", box(b"prhd", HEADER, bytes(12)), box(b"equi", HEADER, bytes(16))),
)
XML = "".join(
    f"<GSpherical:{name}>{value}</GSpherical:{name}>"
    for name, value in {
        "Spherical": "true",
        "Stitched": "true",
        "StitchingSoftware": "x",
        "ProjectionType": "equirectangular",
    }.items()
)
FIRST_360 = box(b"uuid", bytes.fromhex("ffcc8263f8554a938814587a02521fdd"), XML.encode())
"""Google's first mark of spherical video, before ``sv3d``."""

TRACK = [b"moov", b"trak"]
ENTRY = [*TRACK, b"mdia", b"minf", b"stbl", b"stsd", b"avc1"]


def with_box(data: bytes, path: list[bytes], added: bytes) -> bytes:
    """``added`` at the end of the box at ``path``; the index comes last in the file."""
    at, starts = 0, []
    for kind in path:
        while data[at + 4 : at + 8] != kind:
            at += int.from_bytes(data[at : at + 4], "big")
        starts.append(at)
        at += {b"stsd": 16, b"avc1": 86}.get(kind, 8)
    end = starts[-1] + int.from_bytes(data[starts[-1] : starts[-1] + 4], "big")
    grown = bytearray(data[:end] + added + data[end:])
    for start in starts:
        size = int.from_bytes(data[start : start + 4], "big") + len(added)
        grown[start : start + 4] = size.to_bytes(4, "big")
    return bytes(grown)


@pytest.fixture(params=["sv3d.mp4", "uuid.mp4", "projection.mkv"])
def spherical(clips, ffmpeg, tmp_path, request) -> Path:
    path = tmp_path / request.param
    made = path.with_suffix(".mp4")
    place = (TRACK, FIRST_360) if request.param == "uuid.mp4" else (ENTRY, IN_360)
    made.write_bytes(with_box(clips("plain.mp4").read_bytes(), *place))
    if path != made:
        ffmpeg("-i", str(made), "-c", "copy", str(path))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_spherical_mark_is_said_to_be_lost(spherical, tmp_path, suffix):
    assert any(SPHERICAL in note for note in notes_of(spherical, tmp_path / f"a{suffix}"))


@pytest.mark.parametrize("mode", ["left_right", "right_left"])
@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mkv", "h265"), (".webm", "vp9"), (".mp4", "h264"), (".mp4", "h265")]
)
def test_3d_is_kept_or_said_to_be_lost(clips, ffmpeg, tmp_path, mode, suffix, codec):
    source, target = tmp_path / "in.mkv", tmp_path / f"a{suffix}"
    again = ["-i", str(clips("plain.mp4")), "-t", "0.2", "-c", "copy"]
    ffmpeg(*again, "-metadata:s:v", f"stereo_mode={mode}", str(source))
    assert probe(source).marks.stereo == mode
    notes = notes_of(source, target, codec=codec)
    is_kept = suffix != ".mp4" or (codec == "h264" and mode != "right_left")
    assert any(STEREO in note for note in notes) != is_kept
    assert probe(target).marks.stereo == (mode if is_kept else "")


def test_frame_packing_of_h264_becomes_matroskas_mode(ffmpeg, tmp_path):
    source, target = tmp_path / "in.mp4", tmp_path / "a.mkv"
    picture = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=0.2", "-c:v", "libx264"]
    ffmpeg(*picture, "-x264-params", "frame-packing=4", str(source))
    assert notes_of(source, target, codec="ffv1") == ()
    with av.open(str(target)) as container:
        assert container.streams.video[0].metadata["stereo_mode"] == "top_bottom"


@pytest.fixture
def captioned(clips, ffmpeg, tmp_path) -> Path:
    """H.264 with a caption (CTA-708 in ATSC A/53) before its first frame."""
    path = tmp_path / "captioned.h264"
    ffmpeg("-i", str(clips("plain.mp4")), "-c", "copy", str(path))
    data = path.read_bytes()
    body = b"\xb5\0\x31GA94\3\x41\xff\xfc\x94\x20\xff"
    at = data.index(b"\0\0\1\x65")
    path.write_bytes(data[:at] + b"\0\0\1\6\4" + bytes([len(body)]) + body + b"\x80" + data[at:])
    return path


@pytest.fixture
def dolby(ffmpeg, tmp_path) -> Path:
    """A frame of H.265 with a unit of Dolby Vision's metadata behind it."""
    path = tmp_path / "dolby.hevc"
    picture = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=0.1", "-c:v", "libx265"]
    ffmpeg(*picture, "-x265-params", "log-level=error", str(path))
    path.write_bytes(path.read_bytes() + b"\0\0\0\1\x7c\1\x19\4\1\2\3\x80")
    return path


def test_captions_and_dolby_vision_are_said_to_be_lost(captioned, dolby, tmp_path):
    (note,) = notes_of(captioned, tmp_path / "a.mp4")
    assert "closed captions left out" in note
    (note,) = notes_of(dolby, tmp_path / "b.mkv")
    assert "Dolby Vision metadata left out" in note
