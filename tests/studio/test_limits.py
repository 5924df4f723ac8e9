"""What a visitor may ask for."""

import shutil
from fractions import Fraction
from pathlib import Path

import gradio as gr
import pytest

from dloral import UpscaleOptions
from dloral.errors import DLoRALError
from dloral.studio.api import Calls
from dloral.studio.disk import Disk
from dloral.studio.limits import Limits
from dloral.studio.runtime import JobQueue
from dloral.studio.sessions import Sessions
from dloral.studio.studio import Studio
from dloral.video.probe import ClipInfo


def clip_of(width=640, height=480, num_frames=600, fps=30) -> ClipInfo:
    rate = Fraction(fps)
    name = Path("a.mp4")
    more = ("h264", "yuv420p", 8)
    return ClipInfo(name, "video", width, height, num_frames, num_frames / rate, rate, *more)


@pytest.mark.parametrize(
    ("allowed", "clip", "scale", "said"),
    [
        ({"max_minutes": 0.1}, {}, 4, "the length of 20 s exceeds the limit of 6.0 s at once"),
        ({"max_minutes": 0.1}, {"fps": 1000, "num_frames": 6000}, 1, "6000 frames exceeds the"),
        ({"max_pixels": 10**6}, {}, 4, "2560 × 1920 .4.9 million pixels. exceeds .* 1 mi"),
        ({"max_hours": 1}, {}, 1, "2:46:40 h or more exceeds the limit of 1:00:00 h"),
        ({}, {"width": 16000, "height": 4000}, 4, "16000x64000|but only .* GB is free"),
    ],
)
def test_what_is_too_much_is_one_line_with_the_number_and_the_limit(allowed, clip, scale, said):
    asked = UpscaleOptions(model="bicubic", scale=scale)
    with pytest.raises(DLoRALError, match=said) as caught:
        Limits(10**6, **allowed).check(clip_of(**clip), asked, "h264", (10_000, 20_000))
    assert "\n" not in str(caught.value)


def test_a_result_that_the_disk_cannot_hold_is_refused(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=2_500_000_000))
    allowed = Limits(10**6, disk=Disk([tmp_path / "not" / "yet"]))
    options = UpscaleOptions(model="bicubic", scale=2)
    allowed.check(clip_of(), options, "h264", None)
    with pytest.raises(DLoRALError, match=r"about 4\.9 GB, but only 2\.0 GB of disk space"):
        allowed.check(clip_of(), options, "png", None)


@pytest.mark.parametrize(
    ("limit", "value", "less"),
    [
        ("max_minutes", 1 / 3, 0.32),  # 20 s; half a second more than the limit is let through
        ("max_pixels", 2560 * 1920, 2560 * 1920 - 1),
        ("max_hours", 0.5, 0.49),  # of an estimate of 1,800 s at the least
    ],
)
def test_just_what_is_allowed_passes(limit, value, less):
    def check(most):
        allowed = Limits(10**6, **{limit: most})
        allowed.check(clip_of(), UpscaleOptions(model="bicubic", scale=4), "h264", (1800, 3600))

    check(value)
    with pytest.raises(DLoRALError):
        check(less)


def test_calls_of_programs_are_limited_in_hours_too(clip, models, tmp_path):
    queue, limits = JobQueue(), Limits(10**6, max_hours=0.01)
    studio = Studio(Sessions(tmp_path / "s", models, queue), models, queue, limits, {})
    studio.model.cost = 1.0  # seconds for each unit of work: slower than any machine
    try:
        with pytest.raises(gr.Error, match=r"the estimate of .* exceeds the limit of 36 s"):
            Calls(studio).upscale({"clip": str(clip)}, gr.Progress())
    finally:
        studio.sessions.close_all()
