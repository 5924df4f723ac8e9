"""What a picture's file cannot hold is said before the work; metadata are the source's own."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from dloral import UpscaleOptions, upscale_video
from dloral.errors import OptionError
from dloral.video.carried import carried_notes
from dloral.video.encoders import ENCODERS
from dloral.video.encoding import OutputFormat
from dloral.video.probe import probe
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer
from tests.support.runs import notes_of


def described(path: Path, text: str, **more) -> Path:
    block = Image.Exif()
    block[0x010E] = text
    Image.new("RGB", (16, 12), "red").save(path, exif=block.tobytes(), **more)
    return path


@pytest.mark.parametrize(("size", "suffix"), [((4096, 1), ".webp"), ((1, 4096), ".webp")])
def test_a_side_too_long_for_a_file_is_one_line_before_the_work(tmp_path, size, suffix):
    Image.new("RGB", size).save(tmp_path / "a.png")
    seen = []
    with pytest.raises(OptionError, match="at most 16383 pixels a side can be written to"):
        upscale_video(
            tmp_path / "a.png", tmp_path / f"b{suffix}", UpscaleOptions("bicubic"), seen.append
        )
    assert not seen
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    notes_of(tmp_path / "a.png", tmp_path / "b.png", scale=4)
    assert Image.open(tmp_path / "b.png").size == (4 * size[0], 4 * size[1])


@pytest.mark.parametrize(
    ("suffix", "codec", "size", "says"),
    [
        (".mp4", "h264", (16384, 16129), "at most 16128 lines of this width"),
        (".exr", "h264", (16384, 16384), "at most 16128 lines of this width"),
        (".mp4", "h265", (16384, 8706), "h265 takes at most 8704 lines of 16384 pixels"),
        (".mkv", "av1", (64, 8706), "av1 takes at most 8704 lines of 64 pixels"),
    ],
)
def test_a_frame_too_large_for_a_codec_is_one_line(tmp_path, suffix, codec, size, says):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    source, (width, height) = probe(tmp_path / "a.png"), size
    with pytest.raises(OptionError, match=says) as caught:
        open_writer(tmp_path / f"b{suffix}", width=width, height=height, source=source, codec=codec)
    assert "choose a smaller scale" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("codec", "size"),
    [
        *(("av1", (72, 8)), ("av1", (8, 72)), ("av1", (64, 8704)), ("av1", (16384, 4))),
        *(("h265", (4300, 64)), ("h265", (4217, 16)), ("h265", (64, 16384))),
        *(("h264", (16384, 2)), ("vp9", (16384, 2)), ("prores", (64, 16384)), ("ffv1", (1, 16384))),
    ],
)
def test_long_thin_frames_are_encoded(tmp_path, codec, size):
    """SVT-AV1 never ended, x265 refused its own options."""
    source, target = tmp_path / "a.png", tmp_path / f"b{ENCODERS[codec].suffixes[-1]}"
    Image.new("RGB", size, (200, 100, 50)).save(source)
    notes = notes_of(source, target, codec=codec, scale=1)
    with read_frames(target) as frames:
        (pixels,) = (frame.pixels for frame in frames)
    width, height = OutputFormat(target.suffix, *size, codec).coded_size
    assert pixels.shape == (3, height, width)
    assert any("padded" in note for note in notes) == ((width, height) != size)
    wanted = torch.tensor([200, 100, 50])[:, None, None] / 255
    assert (pixels - wanted).abs().max() < 0.04


@pytest.mark.parametrize("kind", ["exif", "xmp"])
@pytest.mark.parametrize("is_too_long", [True, False])
def test_metadata_too_long_for_a_jpeg_are_left_out_and_said(tmp_path, kind, is_too_long):
    size = 70_000 if is_too_long else 60_000
    text = "x" * size if kind == "exif" else "short"
    xmp = b"<x:xmpmeta>" + b" " * (size if kind == "xmp" else 9) + b"</x:xmpmeta>"
    source = described(tmp_path / "a.webp", text, xmp=xmp)
    name = {"exif": "EXIF", "xmp": "XMP"}[kind]
    lost = [f"{name} left out: too long for .jpg"] if is_too_long else []
    assert list(notes_of(source, tmp_path / "b.jpg")) == lost
    with Image.open(tmp_path / "b.jpg") as image:
        has = {"exif": bool(image.getexif()), "xmp": "xmp" in image.info}
    assert has == {"exif": True, "xmp": True} | {kind: not is_too_long}
    assert notes_of(source, tmp_path / "b.png") == ()
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif()[0x010E] == text


def test_a_profile_of_several_segments_is_kept(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    long = profile + bytes(200_000)
    source = described(tmp_path / "a.webp", "short", icc_profile=long)
    assert notes_of(source, tmp_path / "b.jpg") == ()
    assert Image.open(tmp_path / "b.jpg").info["icc_profile"] == long
    longest = profile + bytes(255 * 65_519)
    source = described(tmp_path / "c.webp", "short", icc_profile=longest)
    assert notes_of(source, tmp_path / "d.jpg") == ("colour profile left out: too long for .jpg",)
    assert "icc_profile" not in Image.open(tmp_path / "d.jpg").info


def test_a_picture_has_its_own_metadata_not_an_earlier_one_s_of_its_name(tmp_path):
    source = tmp_path / "a.jpg"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    described(source, "with a place", icc_profile=profile)
    notes_of(source, tmp_path / "b.jpg")
    described(source, "without one, here")
    notes_of(source, tmp_path / "c.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif()[0x010E] == "with a place"
        assert image.info["icc_profile"] == profile
    with Image.open(tmp_path / "c.jpg") as image:
        assert image.getexif()[0x010E] == "without one, here"
        assert "icc_profile" not in image.info
    for isolated in (True, False):
        clip = probe(source, isolated=isolated)
        stamp = source.stat().st_mtime_ns
        described(source, "of the same size!")
        os.utime(source, ns=(stamp, stamp + 1))  # a clock may be coarse
        with open_writer(tmp_path / "d.jpg", width=16, height=12, source=clip) as writer:
            writer.write(torch.zeros(3, 12, 16), 0, 1)
        with Image.open(tmp_path / "d.jpg") as image:
            assert image.getexif()[0x010E] == "of the same size!"
        described(source, "without one, here")


def test_what_is_carried_over_is_of_the_file_that_is_there(clips, tmp_path, ffmpeg):
    (tmp_path / "a.ttf").write_bytes(np.arange(64, dtype=np.uint8).tobytes())
    path, plain = tmp_path / "a.mkv", str(clips("sound.mkv"))
    font = ["-attach", str(tmp_path / "a.ttf"), "-metadata:s:t", "mimetype=font/ttf"]
    ffmpeg("-i", plain, "-c", "copy", *font, str(path))
    clip = probe(path)
    (note,) = carried_notes(clip, ".mp4")
    assert "attachments" in note
    ffmpeg("-i", plain, "-c", "copy", str(path))
    assert carried_notes(clip, ".mp4") == []


@pytest.fixture
def wide_colours(ffmpeg, tmp_path) -> Path:
    """SDR with the primaries of Display P3."""
    path = tmp_path / "p3.mkv"
    tags = "setparams=color_primaries=smpte432:color_trc=bt709:colorspace=bt709"
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=s=32x24:r=10:d=0.2,{tags}", "-c:v", "ffv1", str(path))
    return path


def test_wide_colours_of_a_video_go_through_png_and_back(wide_colours, tmp_path):
    for name in ("frames", "a.apng", "back.mp4"):
        source = tmp_path / "frames" if name == "back.mp4" else wide_colours
        assert notes_of(source, tmp_path / name, scale=1) == ()
        clip = probe(tmp_path / name)
        assert (clip.color_primaries, clip.color_transfer) == (12, 1), name


def test_colours_wider_than_a_file_can_record_are_said(wide_colours, tmp_path):
    for name in ("a.gif", "a.webp"):
        notes = notes_of(wide_colours, tmp_path / name, scale=1)
        assert any("cannot record the source's Display P3 colours" in note for note in notes)


def test_frames_with_and_without_wide_colours_are_one_folder(wide_colours, tmp_path):
    notes_of(wide_colours, tmp_path / "frames", scale=1)
    Image.new("RGB", (32, 24)).save(tmp_path / "frames" / "00000002.png")
    assert probe(tmp_path / "frames").num_frames == 3


def test_wide_colours_of_an_avif_are_kept_in_png(ffmpeg, tmp_path):
    tags = "setparams=color_primaries=bt2020:color_trc=bt709:colorspace=bt709"
    picture = ["-f", "lavfi", "-i", f"testsrc2=s=64x64:d=0.04,format=yuv420p,{tags}"]
    ffmpeg(*picture, "-c:v", "libaom-av1", "-cpu-used", "8", str(tmp_path / "a.avif"))
    assert notes_of(tmp_path / "a.avif", tmp_path / "b.png", scale=1) == ()
    assert probe(tmp_path / "b.png").color_primaries == 9
