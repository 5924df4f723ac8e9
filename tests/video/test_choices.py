"""What people choose about the result: size, codec, speed, chroma, sound, names of frames."""

import io

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from dloral import UpscaleOptions, upscale_video
from dloral.errors import InputError, OptionError
from dloral.video.probe import probe


def restored(source, target, **options):
    """The finished job's last word."""
    told = []
    options = {"model": "bicubic", "scale": 1, "duration": 0.2, **options}
    upscale_video(source, target, UpscaleOptions(**options), told.append)
    return told[-1]


@pytest.mark.parametrize(
    ("chosen", "size"),
    [
        ({"height": 96}, (128, 96)),
        ({"width": 160}, (160, 120)),
        ({"fit": "200x120"}, (160, 120)),
        ({"fit": "100x4000"}, (100, 76)),  # 75 would be odd
    ],
)
def test_a_target_size_is_met(clips, tmp_path, chosen, size):
    restored(clips("plain.mp4"), tmp_path / "a.mp4", **chosen)
    clip = probe(tmp_path / "a.mp4")
    assert (clip.width, clip.height) == size


@pytest.mark.parametrize("chosen", [{"height": 24}, {"width": 1000}, {"fit": "16384x16384"}])
def test_a_target_size_out_of_reach_names_the_sizes_that_are_not(clips, tmp_path, chosen):
    with pytest.raises(InputError, match="give a size from 64x48 to 256x192"):
        restored(clips("plain.mp4"), tmp_path / "a.mp4", **chosen)


def test_two_sizes_at_once_are_refused():
    with pytest.raises(OptionError, match="height and fit are both given"):
        UpscaleOptions(height=1080, fit="1920x1080")


def test_av1_with_a_preset_of_its_own(clips, tmp_path):
    restored(clips("plain.mp4"), tmp_path / "a.webm", codec="av1", preset="12")
    clip = probe(tmp_path / "a.webm")
    assert (clip.codec, clip.num_frames) == ("av1", 5)
    with pytest.raises(OptionError, match="preset"):
        restored(clips("plain.mp4"), tmp_path / "b.webm", codec="av1", preset="veryslow")


def test_an_option_of_the_encoder_reaches_it(clips, tmp_path):
    """x264 writes the settings that it ran with into its stream."""
    target = tmp_path / "a.mp4"
    options = ("g=7", "x264-params=aq-mode=0")
    restored(clips("plain.mp4"), target, preset="ultrafast", encoder_options=options)
    stream = target.read_bytes()
    assert b"keyint=7" in stream
    assert b"aq=0" in stream
    assert b"subme=0" in stream  # ultrafast
    with pytest.raises(OptionError, match="encoder_option is 'nothing=1'"):
        restored(clips("plain.mp4"), tmp_path / "b.mp4", encoder_options=("nothing=1",))
    with pytest.raises(OptionError, match="libx264 does not start with that"):
        restored(clips("plain.mp4"), tmp_path / "b.mp4", encoder_options=("tune=nonsense",))


@pytest.mark.parametrize(("chroma", "form"), [("422", "yuv422p"), ("444", "yuv444p")])
def test_chroma_by_choice(clips, tmp_path, chroma, form):
    restored(clips("plain.mp4"), tmp_path / "a.mp4", chroma=chroma)
    assert probe(tmp_path / "a.mp4").pixel_format == form
    restored(clips("plain.mp4"), tmp_path / "a.mov", codec="prores", chroma=chroma)
    assert probe(tmp_path / "a.mov").pixel_format.startswith(form)


def test_sound_by_choice(clips, packet_hashes, tmp_path):
    source = clips("sound.mp4")
    whole = {"duration": None}
    restored(source, tmp_path / "copy.mp4", audio="copy", **whole)
    assert packet_hashes(tmp_path / "copy.mp4", "a") == packet_hashes(source, "a")
    restored(clips("sound.mov"), tmp_path / "aac.mov", audio="aac", **whole)
    assert probe(clips("sound.mov")).audio_codecs == ("pcm_s16le",)
    assert probe(tmp_path / "aac.mov").audio_codecs == ("aac",)
    restored(source, tmp_path / "none.mp4", audio="none", **whole)
    assert not probe(tmp_path / "none.mp4").has_audio
    with pytest.raises(OptionError, match="sound cannot be copied"):
        restored(clips("sound.mov"), tmp_path / "b.webm", codec="vp9", audio="copy")
    assert not (tmp_path / "b.webm").exists()


def test_names_and_rate_of_a_folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (101, 102, 103):
        Image.new("RGB", (16, 12), (number, 0, 0)).save(folder / f"shot_{number:04}.png")
    restored(folder, tmp_path / "out", duration=None)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        f"shot_{number:04}.png" for number in (101, 102, 103)
    ]
    restored(folder, tmp_path / "numbers", duration=None, keep_names=False)
    assert (tmp_path / "numbers" / "00000002.png").exists()
    restored(folder, tmp_path / "a.mp4", duration=None, fps=29.97)
    assert float(probe(tmp_path / "a.mp4").fps) == pytest.approx(30000 / 1001)


@pytest.mark.parametrize("name", ["b.gif", "b.psd", "b.cr2", "b.mp4"])
def test_a_frame_that_is_not_read_is_an_error_and_other_files_are_said(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    for stem in "ac":
        Image.new("RGB", (16, 12)).save(folder / f"{stem}.png")
    (folder / "notes.txt").write_text("of the shot")
    told = restored(folder, tmp_path / "out", duration=None)
    assert "files in the folder that are not pictures left out: notes.txt" in told.notes
    (folder / name).write_bytes(b"something")
    with pytest.raises(InputError, match=f"holds {name}, which is not read as a frame"):
        probe(folder)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exif_xmp_and_profile_of_a_picture_are_kept(tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F], exif[0x0132] = "Apple", "2015:06:07 08:09:10"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">kept</x:xmpmeta>'
    source = tmp_path / "a.jpg"
    Image.new("RGB", (16, 12), (200, 100, 50)).save(
        source, exif=exif.tobytes(), icc_profile=profile, xmp=xmp
    )
    target = tmp_path / f"out{suffix}"
    restored(source, target, scale=2, duration=None)
    with Image.open(io.BytesIO(target.read_bytes())) as image:
        image.load()
        assert image.size == (32, 24)
        found = image.getexif()
        assert (found[0x010F], found[0x0132]) == ("Apple", "2015:06:07 08:09:10")
        assert image.info["icc_profile"] == profile
    assert b">kept</x:xmpmeta>" in target.read_bytes()


def test_what_a_picture_cannot_keep_is_said(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Apple"
    Image.new("RGB", (16, 12)).save(tmp_path / "a.jpg", exif=exif.tobytes())
    told = restored(tmp_path / "a.jpg", tmp_path / "out.exr", duration=None)
    assert "EXIF left out: not kept in .exr" in told.notes


def test_more_than_8_bits_come_out_at_10(clips, tmp_path):
    """SDR too, whole and from kept segments, to the bit the same."""
    source = clips("ten.mkv")
    for resume in (True, False):
        restored(source, tmp_path / f"{resume}.mkv", codec="h265", resume=resume, duration=None)
    assert probe(tmp_path / "True.mkv").pixel_format == "yuv420p10le"
    packets = []
    for resume in (True, False):
        with av.open(str(tmp_path / f"{resume}.mkv")) as container:
            packets.append([bytes(packet) for packet in container.demux(video=0)])
    assert packets[0] == packets[1]
    told = restored(source, tmp_path / "a.webm", codec="vp9")
    is_reduced = probe(tmp_path / "a.webm").bit_depth == 8  # depends on how FFmpeg was built
    said = "10 bits are reduced to 8: vp9 is written with 8 bits here"
    assert (said in told.notes) == is_reduced
    assert np.ptp([len(packet) for packet in packets[0]]) > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 16), (3, 2), (16, 1)])
@pytest.mark.parametrize(("codec", "suffix"), [("av1", ".mkv"), ("ffv1", ".mkv"), ("h265", ".mp4")])
def test_the_smallest_frames_are_written(tmp_path, size, codec, suffix):
    Image.new("RGB", size, (200, 100, 50)).save(tmp_path / "a.png")
    told = restored(tmp_path / "a.png", tmp_path / f"a{suffix}", codec=codec, duration=None)
    with av.open(str(tmp_path / f"a{suffix}")) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(pixels[0, 0].astype(int) - [200, 100, 50]).max() < 8
    assert any("padded" in note for note in told.notes) == (codec != "ffv1")
