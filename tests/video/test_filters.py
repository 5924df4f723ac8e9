"""Interlaced clips: found, and made whole."""

from fractions import Fraction
from itertools import pairwise

import av
import pytest

from dloral.options import UpscaleOptions
from dloral.upscale import upscale_steps
from dloral.video.filters import BOTTOM_FIRST, TOP_FIRST
from dloral.video.probe import probe
from dloral.video.reader import read_frames
from dloral.video.treatment import treated, treatment_notes


@pytest.fixture(scope="module")
def made(tmp_path_factory, ffmpeg):
    folder = tmp_path_factory.mktemp("interlaced")

    def make(name, filters, *options, size="320x240", rate=50):
        path = folder / name
        if not path.exists():
            picture = f"testsrc2=s={size}:r={rate}:d=0.6"
            ffmpeg("-f", "lavfi", "-i", picture, "-vf", filters, *options, str(path))
        return path

    return make


MARKED = ("-c:v", "mpeg2video", "-flags", "+ilme+ildct")


def test_marks_count_where_nothing_moves_enough(made):
    clip = probe(made("small.mpg", "interlace=scan=tff", *MARKED, size="64x48"))
    assert clip.field_order == TOP_FIRST


@pytest.mark.parametrize(("scan", "order"), [("tff", TOP_FIRST), ("bff", BOTTOM_FIRST)])
def test_combs_without_marks_are_seen(made, scan, order):
    path = made(f"{scan}.mp4", f"interlace=scan={scan},setfield=prog", "-c:v", "libx264")
    assert probe(path).field_order == order


@pytest.mark.parametrize("size", ["64x48", "160x120", "320x240", "640x480"])
def test_whole_frames_stay_whole(made, size):
    path = made(f"whole{size}.mp4", "null", "-c:v", "libx264", size=size, rate=25)
    clip = probe(path)
    assert clip.field_order is None
    assert clip.deinterlace == "off"


def test_whole_frames_that_are_marked(made):
    path = made("psf.mkv", "setfield=tff", "-c:v", "ffv1", size="320x240", rate=25)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    assert probe(path).field_order is None


def test_the_order_of_tiny_pictures_is_that_of_their_marks(made):
    path = made("bff.mpg", "interlace=scan=bff", *MARKED, size="64x48")
    assert probe(path).field_order == BOTTOM_FIRST


def test_wrong_marks_do_not_hide_what_is_seen(made):
    path = made("wrong.mpg", "interlace=scan=tff,setfield=bff", *MARKED)
    assert probe(path).field_order == TOP_FIRST


def test_each_way_of_deinterlacing(made, tmp_path):
    path = made("tff.mp4", "interlace=scan=tff,setfield=prog", "-c:v", "libx264")
    counts = {}
    for method in ("auto", "off", "frame", "field"):
        clip = treated(probe(path), UpscaleOptions(deinterlace=method), ".mp4")
        with read_frames(clip) as frames:
            times = [frame.time for frame in frames]
        counts[method] = (len(times), clip.num_frames, clip.fps)
        assert times == [index / clip.fps for index in range(len(times))]
    assert counts["auto"] == counts["frame"] == counts["off"] == (15, 15, 25)
    assert counts["field"] == (30, 30, 50)


def test_a_field_has_no_comb(made):
    """Neighbouring lines of a whole frame differ less than those of a combed one."""
    path = made("tff.mp4", "interlace=scan=tff,setfield=prog", "-c:v", "libx264")

    def comb(method):
        with read_frames(treated(probe(path), UpscaleOptions(deinterlace=method), "")) as frames:
            pixels = list(frames)[5].pixels
        return (pixels[:, 2:] + pixels[:, :-2] - 2 * pixels[:, 1:-1]).abs().mean()

    assert comb("frame") < 0.8 * comb("off")
    assert comb("field") < 0.8 * comb("off")


def test_reading_from_the_middle_gives_the_same_frames(made):
    path = made("tff.mp4", "interlace=scan=tff,setfield=prog", "-c:v", "libx264")
    clip = treated(probe(path), UpscaleOptions(deinterlace="field"), "")
    with read_frames(clip) as frames:
        whole = list(frames)
    with read_frames(clip, Fraction(1, 5)) as frames:
        part = list(frames)
    assert [frame.time for frame in part] == [frame.time for frame in whole[10:]]
    assert all((a.pixels == b.pixels).all() for a, b in zip(part, whole[10:], strict=True))


def test_film_comes_back_from_its_telecine(made):
    path = made("tele.mp4", "telecine", "-c:v", "libx264", rate="24000/1001")
    telecined = probe(path)
    assert telecined.is_telecined
    (note,) = treatment_notes(treated(telecined, UpscaleOptions(), ""), UpscaleOptions(), "")
    assert "looks like telecined film" in note
    clip = treated(telecined, UpscaleOptions(deinterlace="film"), "")
    assert clip.fps == Fraction(24000, 1001)
    with read_frames(clip) as frames:
        times = [float(frame.time) for frame in frames]
    assert len(times) == pytest.approx(14, abs=1)
    steps = [after - before for before, after in pairwise(times)]
    assert all(step == pytest.approx(1001 / 24000, abs=1e-3) for step in steps)


def test_it_is_said(made, tmp_path):
    path = made("small.mpg", "interlace=scan=tff", *MARKED, size="64x48")
    options = UpscaleOptions(model="bicubic", scale=1)
    *_, last = upscale_steps(path, tmp_path / "out.mp4", options)
    assert any("deinterlaced" in note for note in last.notes)
