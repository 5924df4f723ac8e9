"""What the page says of a clip, of a plan and of a run; and its controls as options."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from dloral import UpscaleOptions
from dloral.errors import OptionError
from dloral.studio import words
from dloral.studio.handlers import chosen_options
from dloral.upscale import Progress
from dloral.video.probe import ClipInfo

CLIP = ClipInfo(
    path=Path("holiday.mp4"),
    kind="video",
    width=640,
    height=360,
    num_frames=300,
    duration=Fraction(12),
    fps=Fraction(25),
    codec="h264",
    pixel_format="yuv420p",
    bit_depth=8,
    has_audio=True,
)


def test_facts_name_size_frames_rate_length_codec_and_sound():
    said = words.facts(CLIP)
    assert "640 × 360 · 300 frames · 25 per second · 12 s · H.264 · with sound" in said
    assert "no sound" in words.facts(replace(CLIP, has_audio=False))


def test_a_codec_name_cannot_carry_markup():
    assert "<B>" not in words.facts(replace(CLIP, codec="<b>"))


def test_the_plan_is_the_size_and_the_frames_that_will_be_made():
    said = words.plan(CLIP, UpscaleOptions(scale=2, start=2, duration=3))
    assert "<b>1280 × 720</b>, 75 of 300 frames" in said
    assert "all 300 frames" in words.plan(CLIP, UpscaleOptions(scale=1))


def test_a_large_plan_says_so():
    assert "large" not in words.plan(CLIP, UpscaleOptions(scale=4))
    assert "large" in words.plan(replace(CLIP, width=1280), UpscaleOptions(scale=4))


@pytest.mark.parametrize(("width", "height", "scale"), [(640, 360, 4), (1280, 720, 2)])
def test_a_large_clip_is_suggested_twice(width: int, height: int, scale: float):
    assert words.suggested_scale(replace(CLIP, width=width, height=height)) == scale


def test_a_long_clip_is_suggested_in_part_and_a_short_one_whole():
    assert words.suggested_seconds(CLIP) == 5
    assert words.suggested_seconds(replace(CLIP, duration=Fraction(4))) is None
    assert words.suggested_seconds(replace(CLIP, kind="image")) is None


def test_a_run_says_frame_speed_and_time_left():
    said = words.running_stage(Progress("restoring", 30, 300, 2.0), None)
    assert "Frame <b>30</b> of 300 · 2 frames/s · 2:15 min left" in said
    assert "aria-valuenow='10'" in said


def test_a_run_of_unknown_length_shows_no_share():
    said = words.running_stage(Progress("restoring", 30, None, 2.0), None)
    assert "Frame <b>30</b> · 2 frames/s" in said
    assert "aria-valuenow" not in said


def test_a_message_cannot_carry_markup():
    assert "<script>" not in words.message("<script>alert(1)</script>.mp4 is no video")


def test_a_large_picture_is_sent_small():
    large = words.picture_of(torch.zeros(3, 1600, 2560))
    assert len(large) < len(words.picture_of(torch.zeros(3, 800, 1280))) * 1.1


def settings(**changed: object) -> list[object]:
    chosen = {
        "consistency": 1,
        "detail": 1.5,
        "scale": 4,
        "start": None,
        "seconds": 0,
        "window": 1,
        "color_fix": "auto",
        "tile": "auto",
        "codec": "h264",
        "crf": "auto",
        "bit_depth": 8,
    }
    return list((chosen | changed).values())


def test_empty_fields_are_the_whole_clip_and_the_codecs_own_quality():
    options = chosen_options("compact", *settings())
    assert options == UpscaleOptions(detail=1.5)


@pytest.mark.parametrize(("tile", "cells"), [("none", None), ("auto", "auto"), ("64", 64)])
def test_tiles_are_cells_none_or_auto(tile: str, cells: int | str | None):
    assert chosen_options("compact", *settings(tile=tile)).tile == cells


def test_what_a_browser_was_made_to_send_is_checked():
    with pytest.raises(OptionError, match="scale is 40"):
        chosen_options("compact", *settings(scale=40))
