"""The pixel aspect ratio: read as ffmpeg reads it, and kept in every video that is written."""

import re
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import pytest

from dloral.options import UpscaleOptions
from dloral.upscale import upscale_steps
from dloral.video.encoders import ENCODERS
from dloral.video.matroska import SEGMENT, TRACK, TRACKS, ebml_child, ebml_children
from dloral.video.probe import probe

WIDE = Fraction(16, 11)
SOURCE = ("-f", "lavfi", "-i", "testsrc2=s=88x48:r=25:d=0.08", "-vf", "setsar=16/11")


def upscaled(source: Path, target: Path, **options) -> tuple[str, ...]:
    """The notes."""
    *_, last = upscale_steps(
        source, target, UpscaleOptions(model="bicubic", **{"scale": 2, **options})
    )
    return last.notes


def shape_of(path: Path) -> Fraction | None:
    with av.open(str(path)) as container:
        return container.streams.video[0].sample_aspect_ratio


def shape_by_ffmpeg(path: Path) -> Fraction:
    """That of the first frame that its decoder hands on."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-nostdin",
        "-i",
        str(path),
        "-vf",
        "showinfo",
        "-f",
        "null",
        "-",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return Fraction(re.search(r" sar:(\d+/\d+)", told)[1])


@pytest.fixture(scope="module")
def wide(ffmpeg, tmp_path_factory) -> Path:
    """Frames of 88 x 48 with pixels of 16:11, which H.264 and MP4 both say."""
    path = tmp_path_factory.mktemp("wide") / "wide.mp4"
    ffmpeg(*SOURCE, "-c:v", "libx264", "-pix_fmt", "yuv420p", str(path))
    return path


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("a.webm", ("-c:v", "libvpx")),
        ("a.webm", ("-c:v", "libvpx-vp9")),
        ("a.mkv", ("-c:v", "ffv1")),
        ("a.mov", ("-c:v", "prores_ks")),
        ("a.mkv", ("-c:v", "prores_ks")),
    ],
)
def test_known_to_the_container_alone(ffmpeg, tmp_path, name, output):
    ffmpeg(*SOURCE, *output, str(tmp_path / name))
    assert probe(tmp_path / name).sample_aspect_ratio == WIDE


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_container_and_codec_disagree(wide, ffmpeg, tmp_path, suffix):
    source = tmp_path / f"a{suffix}"
    ffmpeg("-i", str(wide), "-c", "copy", "-aspect", "16:9", str(source))
    shape = shape_by_ffmpeg(source)
    assert shape == Fraction(32, 33)
    assert probe(source).sample_aspect_ratio == shape
    upscaled(source, tmp_path / "out.mp4")
    assert shape_by_ffmpeg(tmp_path / "out.mp4") == shape


def test_fit_counts_what_is_shown(ffmpeg, tmp_path):
    ffmpeg(*SOURCE, "-c:v", "ffv1", str(tmp_path / "a.mkv"))
    upscaled(tmp_path / "a.mkv", tmp_path / "b.mkv", scale=4.0, fit="256x256")
    written = probe(tmp_path / "b.mkv")
    assert (written.width, written.height) == (176, 96), "256 wide, as shown"


USUAL = [
    (codec, suffix)
    for codec, encoder in ENCODERS.items()
    for suffix in encoder.suffixes
    if not encoder.is_hardware
]


@pytest.mark.parametrize(("codec", "suffix"), USUAL)
def test_every_video_keeps_it(wide, tmp_path, codec, suffix):
    target = tmp_path / f"out{suffix}"
    assert upscaled(wide, target, codec=codec) == ()
    assert shape_of(target) == shape_by_ffmpeg(target) == WIDE


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_header_stays_whole(wide, ffmpeg, tmp_path, suffix):
    """Names, checksums and what follows the header."""
    source, target = tmp_path / "a.mkv", tmp_path / f"out{suffix}"
    ffmpeg("-i", str(wide), "-c", "copy", "-metadata:s:v", "title=A name", str(source))
    codec = "vp9" if suffix == ".webm" else "ffv1"
    upscaled(source, target, codec=codec)
    ffmpeg("-err_detect", "crccheck+explode", "-i", str(target), "-f", "null", "-")
    with av.open(str(target)) as container:
        assert container.streams.video[0].metadata["title"] == "A name"
    tracks = ebml_child(target.read_bytes(), SEGMENT, TRACKS)
    assert [identity for identity, _ in ebml_children(tracks)].count(TRACK) == 1
