"""Pictures in one file: GIF, APNG, animated WebP and TIFF of several pages, written and read."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dloral import UpscaleOptions, upscale_video
from dloral.errors import OutputError
from dloral.video import animations
from dloral.video.animations import is_animation
from dloral.video.probe import ClipInfo, probe
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer

SUFFIXES = (".gif", ".apng", ".png", ".webp", ".tif", ".tiff")
LENGTHS = (40, 100, 30, 250, 70)
"""Milliseconds."""

SAME = UpscaleOptions(model="bicubic", scale=1)


def pictures(mode: str = "RGBA") -> list[Image.Image]:
    """A square that moves; opaque in it, clear around it, at one third above."""
    made = []
    for number in range(len(LENGTHS)):
        codes = np.zeros((24, 32, 4), np.uint8)
        codes[..., 0], codes[..., 1] = 50 * number, 8 * np.arange(32)
        codes[8:20, 2 + 4 * number : 12 + 4 * number, 3] = 255
        codes[:4, :, 3] = 85
        made.append(Image.fromarray(codes).convert(mode))
    return made


def animate(path: Path, plays: int = 3, mode: str = "RGBA", **more: object) -> Path:
    first, *others = pictures(mode)
    lossless = {"lossless": True, "exact": True} if path.suffix == ".webp" else {}
    first.save(
        path,
        save_all=True,
        append_images=others,
        duration=list(LENGTHS),
        loop=plays - 1 if path.suffix == ".gif" else plays,
        **lossless,
        **more,
    )
    return path


def restored(source: Path, target: Path, options: UpscaleOptions = SAME) -> list[str]:
    """The notes of a job."""
    notes: list[str] = []
    upscale_video(source, target, options, lambda told: notes.__setitem__(slice(None), told.notes))
    return notes


def shown(path: Path) -> tuple[list[Image.Image], list[int]]:
    """The pictures and how many milliseconds each is shown, as Pillow reads them."""
    found, lengths = [], []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            lengths.append(round(image.info.get("duration", 0)))
            found.append(image.convert("RGBA"))
    return found, lengths


def seen(image: Image.Image) -> np.ndarray:
    """Colour times alpha: what is hidden does not count."""
    codes = np.asarray(image, np.float32)
    return np.concatenate([codes[..., :3] * codes[..., 3:] / 255, codes[..., 3:]], 2)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("source", [".webp", ".png"])
def test_pictures_times_plays_and_transparency_come_back(tmp_path, source, suffix):
    clip = animate(tmp_path / f"in{source}")
    target = tmp_path / f"out{suffix}"
    notes = restored(clip, target)
    found, lengths = shown(target)
    is_gif, is_tiff = suffix == ".gif", suffix.startswith(".tif")
    assert len(found) == len(LENGTHS)
    if not is_tiff:
        assert lengths == list(LENGTHS)
        assert probe(target).plays == 3
    for image, wanted in zip(found, pictures(), strict=True):
        if is_gif:
            assert (np.asarray(image)[..., 3] == 255 * (np.asarray(wanted)[..., 3] >= 128)).all()
            wanted.putalpha(image.getchannel("A"))
        assert np.abs(seen(image) - seen(wanted)).max() <= (12 if is_gif else 1)
    said = {".gif": ["all or nothing", "256 colours"], ".tif": ["no times"]}
    for words in said.get(suffix[:4], []):
        assert any(words in note for note in notes), notes
    assert sorted(path.name for path in tmp_path.iterdir()) == [clip.name, target.name]


@pytest.mark.parametrize(("plays", "said"), [(1, 1), (0, 0), (4, 4)])
@pytest.mark.parametrize("suffix", [".gif", ".apng", ".webp"])
def test_how_often_it_is_played_is_kept(tmp_path, suffix, plays, said):
    restored(animate(tmp_path / "in.webp", plays), tmp_path / f"out{suffix}")
    restored(tmp_path / f"out{suffix}", tmp_path / "again.webp")
    assert probe(tmp_path / "again.webp").plays == said


def test_a_gif_without_a_loop_is_played_once(clips, tmp_path, ffmpeg):
    ffmpeg("-i", str(clips("plain.gif")), "-loop", "-1", str(tmp_path / "once.gif"))
    assert probe(tmp_path / "once.gif").plays == 1
    assert probe(clips("plain.gif")).plays == 0


@pytest.mark.parametrize("suffix", [".gif", ".apng", ".webp", ".tif"])
def test_a_video_becomes_pictures_for_ever_without_sound(clips, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    notes = restored(clips("subtitled.mkv"), target, replace(SAME, duration=0.4))
    assert "a picture keeps no sound or subtitles" in notes
    found, lengths = shown(target)
    assert len(found) == 10
    if suffix != ".tif":
        assert lengths == [40] * 10
        assert probe(target).plays == 0


def test_a_gif_takes_50_frames_a_second_and_says_what_it_left_out(ffmpeg, tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x24:r=120:d=0.5", str(tmp_path / "fast.mkv"))
    notes = restored(tmp_path / "fast.mkv", tmp_path / "out.gif")
    _, lengths = shown(tmp_path / "out.gif")
    assert min(lengths) >= 20
    assert sum(lengths) == pytest.approx(500, abs=20)
    (note,) = [note for note in notes if "left out" in note]
    assert note == f"{60 - len(lengths)} frames left out: a GIF shows no more than 50 a second"


def test_rates_that_are_no_whole_delays_do_not_drift(clips, tmp_path):
    for suffix, off in ((".gif", 5), (".webp", 1), (".apng", 1)):
        restored(clips("ntsc.mp4"), tmp_path / f"out{suffix}")
        frames, lengths = shown(tmp_path / f"out{suffix}")
        assert len(frames) == 30
        if suffix != ".apng":  # whose delays are fractions
            assert sum(lengths) == pytest.approx(1001, abs=off)
    assert float(probe(tmp_path / "out.apng").duration) == pytest.approx(1.001, abs=0.0002)


def test_deep_pictures_stay_deep(clips, tmp_path):
    for suffix in (".apng", ".tif"):
        restored(clips("ten.mkv"), tmp_path / f"out{suffix}", replace(SAME, duration=0.12))
        result = probe(tmp_path / f"out{suffix}")
        assert (result.bit_depth, result.num_frames) == (16, 3)
        wanted = read_frames(clips("ten.mkv"), 0, 0.12)
        with wanted as before, read_frames(result) as after:
            for one, other in zip(before, after, strict=True):
                assert (one.pixels - other.pixels).abs().max() < 1 / 60_000


def test_pixels_that_are_not_square_are_said(clips, tmp_path):
    for target in ("a.gif", "frames"):
        notes = restored(clips("anamorphic.mp4"), tmp_path / target, replace(SAME, duration=0.1))
        said = "pictures cannot record the source's 16:11 pixels: shown as square"
        assert said in notes
    assert restored(clips("anamorphic.mp4"), tmp_path / "a.mp4", replace(SAME, duration=0.1)) == []


@pytest.mark.parametrize("suffix", [".apng", ".webp", ".tif"])
def test_a_colour_profile_is_kept_and_the_colours_in_it(tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    clip = animate(tmp_path / "in.webp", icc_profile=profile)
    restored(clip, tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.info["icc_profile"] == profile
        assert np.abs(seen(image.convert("RGBA")) - seen(pictures()[0])).max() <= 1


@pytest.mark.parametrize("suffix", [".apng", ".webp"])
def test_exif_and_xmp_are_kept(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    clip = animate(tmp_path / "in.webp", exif=exif.tobytes(), xmp=b"<x:xmpmeta/>")
    assert restored(clip, tmp_path / f"out{suffix}") == []
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.getexif()[0x010E] == "a description"
        assert b"xmpmeta" in bytes(image.info["xmp"])
    notes = restored(clip, tmp_path / "out.tif")
    assert "EXIF and XMP left out: not kept in .tif" in notes


@pytest.mark.parametrize(
    ("suffix", "kind", "frames", "plays", "wanted"),
    [
        (".webp", "image", 1, None, False),
        (".webp", "video", 5, None, True),
        (".webp", "video", None, None, True),
        (".tif", "pages", 5, None, True),
        (".png", "video", 5, None, False),
        (".png", "video", 5, 0, True),
        (".png", "pages", 5, 1, True),
        (".gif", "image", 1, None, True),
        (".jpg", "pages", 5, 1, False),
        (".mp4", "video", 5, 0, False),
    ],
)
def test_which_targets_hold_all_frames(suffix, kind, frames, plays, wanted):
    clip = ClipInfo(
        *(Path("a"), kind, 8, 8, frames, Fraction(1), Fraction(5), "x", "rgb24", 8), plays=plays
    )
    assert is_animation(suffix, clip) is wanted


def test_a_single_picture_becomes_a_gif(tmp_path):
    pictures("RGB")[2].save(tmp_path / "a.png")
    restored(tmp_path / "a.png", tmp_path / "a.gif")
    found, _ = shown(tmp_path / "a.gif")
    assert len(found) == 1
    assert np.abs(seen(found[0]) - seen(pictures("RGB")[2].convert("RGBA"))).max() <= 12


def test_a_strangers_animation_is_written_by_a_worker(tmp_path):
    clip = probe(animate(tmp_path / "in.webp"), isolated=True)
    for suffix in (".gif", ".apng", ".webp", ".tif"):
        target = tmp_path / f"out{suffix}"
        writing = open_writer(target, width=32, height=24, source=clip)
        with writing as writer, read_frames(clip) as frames:
            for frame in frames:
                writer.write(frame.pixels, frame.time, frame.duration)
        assert len(shown(target)[0]) == len(LENGTHS)


@pytest.mark.parametrize("suffix", [".webp", ".tif"])
def test_a_file_that_would_be_too_large_is_one_line_and_leaves_nothing(
    tmp_path, suffix, monkeypatch
):
    clip = animate(tmp_path / "in.webp")
    monkeypatch.setattr(animations, "_MOST_BYTES", 900)
    with pytest.raises(OutputError, match="more than 4 GB, which a") as caught:
        restored(clip, tmp_path / f"out{suffix}")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.webp"]


@pytest.mark.parametrize("suffix", [".gif", ".apng", ".webp", ".tif"])
def test_what_stood_there_stays_until_the_result_is_whole(tmp_path, suffix):
    clip, target = animate(tmp_path / "in.webp"), tmp_path / f"out{suffix}"
    target.write_bytes(b"old")

    def write_half() -> None:
        writing = open_writer(target, width=32, height=24, source=probe(clip))
        with writing as writer, read_frames(clip) as frames:
            frame = next(frames)
            writer.write(frame.pixels, frame.time, frame.duration)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


def of_a_rate(ffmpeg, path: Path, rate: str) -> None:
    """75 pictures, ``rate`` of them a second; a TIFF says no rate, and is shown at 24."""
    if path.suffix == ".tif":
        first, *others = [Image.new("RGB", (32, 24), (3 * n, 0, 0)) for n in range(25)]
        first.save(path, save_all=True, append_images=others)
        return
    codec = ["-c:v", "libaom-av1", "-cpu-used", "8"] if path.suffix == ".avif" else []
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=s=32x24:r={rate}", "-frames:v", "25", *codec, str(path))


@pytest.mark.parametrize(
    ("suffix", "rate"),
    [
        (".tif", "24"),
        *((".apng", rate) for rate in ("24", "30", "24000/1001", "30000/1001", "25", "7")),
        *((".avif", rate) for rate in ("24", "30000/1001")),
    ],
)
def test_rates_stay_exact(ffmpeg, frame_times, tmp_path, suffix, rate):
    """Lengths that are no whole milliseconds, or ticks of FFmpeg's APNG, do not add up."""
    source, fps = tmp_path / f"a{suffix}", Fraction(rate)
    of_a_rate(ffmpeg, source, rate)
    clip = probe(source)
    assert (clip.num_frames, clip.fps, clip.duration) == (25, fps, 25 / fps)
    restored(source, tmp_path / "out.mp4")
    tick = Fraction(1, 90_000)
    times = frame_times(tmp_path / "out.mp4")
    assert all(abs(time - n / fps) <= tick for n, time in enumerate(times))
    assert abs(probe(tmp_path / "out.mp4").duration - 25 / fps) <= tick
    for animation in (".apng", ".webp"):
        restored(source, tmp_path / f"out{animation}")
        written = probe(tmp_path / f"out{animation}")
        assert abs(written.duration - 25 / fps) <= Fraction(1, 2000)


def test_uneven_apng_keeps_its_times(tmp_path):
    clip = probe(animate(tmp_path / "a.apng"))
    assert clip.time_base == Fraction(1, 100_000)
    with read_frames(clip) as frames:
        assert [frame.duration * 1000 for frame in frames] == list(LENGTHS)
