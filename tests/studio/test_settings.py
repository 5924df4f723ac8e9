"""Settings of the page, of files and of calls; what is said of a clip; the curves."""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from PIL import Image

from dloral import UpscaleOptions
from dloral.errors import OptionError
from dloral.studio.estimates import (
    clip_facts,
    plan,
    range_in_words,
    suggested_scale,
    suggested_seconds,
    time_in_words,
)
from dloral.studio.measures import MOST_ROWS, Measures
from dloral.studio.runtime import Model
from dloral.studio.settings import result_name, settings_from, settings_from_file
from dloral.studio.speeds import Effort
from dloral.studio.stills import thumbnails
from dloral.video.clock import Clock
from dloral.video.probe import ClipInfo, probe

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


def test_settings_become_the_generators_options():
    found = settings_from({"scale": 2, "detail": 0.5, "tile": 16, "start": 1, "crf": 20}, "compact")
    assert found.options == UpscaleOptions(
        scale=2, detail=0.5, tile=16, tile_overlap=8, start=1, crf=20
    )
    assert settings_from({}, "compact").options == UpscaleOptions()
    assert settings_from({"tile": "none"}, "compact").options.tile is None
    assert settings_from({"format": None, "scale": None}, "compact").format == "h264"


@pytest.fixture(autouse=True)
def _the_clip(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLIP's file, whose sound, subtitles and the like a plan looks at."""
    monkeypatch.chdir(tmp_path)
    Path("holiday.mp4").symlink_to(clip)


def test_size_and_deinterlacing_by_choice_are_planned_and_said():
    tape = replace(CLIP, field_order="top first", deinterlace="frame", clock=Clock(jumps=1))
    usual = plan(tape, settings_from({"scale": 2}, "compact"), Model("compact"))
    assert usual["notes"] == [
        "the source's clock jumps once (joined recordings?): time continues there",
        "interlaced source: deinterlaced at the same frame rate",
    ]
    chosen = settings_from({"fit": "1920x1080", "deinterlace": "field"}, "compact")
    made = plan(tape, chosen, Model("compact"))
    assert (made["width"], made["height"], made["frames"]) == (1920, 1080, 600)
    assert "twice the rate" in made["notes"][1]
    off = plan(tape, settings_from({"deinterlace": "off"}, "compact"), Model("compact"))
    assert "stays so" in off["notes"][1]


def test_a_gif_says_before_the_run_what_it_loses():
    quick = replace(CLIP, fps=Fraction(60))
    notes = plan(quick, settings_from({"format": "gif"}, "compact"), Model("compact"))["notes"]
    assert notes[:2] == [
        "a GIF has 256 colours a frame",
        "a GIF shows no more than 50 frames a second: some are left out",
    ]
    assert any("sound" in note for note in notes)
    usual = plan(CLIP, settings_from({"format": "webp"}, "compact"), Model("compact"))["notes"]
    assert len(usual) == 1
    assert "sound" in usual[0]


@pytest.mark.parametrize("kept_as", ["h264", "h265", "vp9", "prores", "ffv1", "gif", "webp", "png"])
def test_settings_survive_their_file(kept_as):
    found = settings_from({"format": kept_as, "window": 3, "crf": 20}, "compact")
    again = settings_from(settings_from_file(found.as_file(CLIP)), "compact")
    assert again.as_dict() == found.as_dict()
    assert Path(result_name(CLIP, kept_as)).stem == "holiday-restored"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        *(({"format": "avi"}, "format"), ({"sclae": 2}, "'sclae'"), ({"prompt": 5}, "prompt")),
        ({"prompt": "a cat \ud83d"}, "prompt is not text"),  # half an emoji; no answer can hold it
        ({"scenes": [{"start": "0", "prompt": "\ud83d"}]}, "a scene's prompt is not text"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(values, said):
    with pytest.raises(OptionError, match=said) as caught:
        settings_from(values, "compact")
    assert "\n" not in str(caught.value)


def test_facts_name_size_frames_rate_length_codec_and_sound():
    assert clip_facts(CLIP) == ["640 × 360", "300 frames", "25 fps", "12 s", "H.264", "with sound"]
    assert clip_facts(replace(CLIP, has_audio=False))[-1] == "no sound"
    assert clip_facts(replace(CLIP, kind="image", codec="png")) == ["640 × 360", "PNG"]


def test_a_moving_picture_is_a_clip(tmp_path):
    pages = [Image.new("L", (64, 48), 20 * number) for number in range(12)]
    pages[0].save(tmp_path / "a.webp", save_all=True, append_images=pages[1:], duration=1000)
    clip, model = probe(tmp_path / "a.webp"), Model("bicubic")
    assert clip_facts(clip) == ["64 × 48", "12 frames", "1 fps", "12 s", "WebP"]
    assert suggested_seconds(clip) == 5
    words = plan(clip, settings_from({"scale": 2, "duration": 5}, "bicubic"), model)["words"]
    assert words == ["128 × 96", "5 of 12 frames"]
    strip = Image.open(io.BytesIO(thumbnails(clip, 3)))
    assert [strip.getpixel((x * strip.width // 6, 32))[0] // 20 for x in (1, 3, 5)] == [2, 6, 10]


def test_the_plan_is_the_size_the_frames_the_time_and_the_memory():
    model = Model("compact")
    model.timed(Effort(1.0, 1.0), 1_000_000)
    made = plan(CLIP, settings_from({"scale": 2, "start": 2, "duration": 3}, "compact"), model)
    assert made["words"][:3] == ["1280 × 720", "75 of 300 frames", "1:30 to 2:30 min"]
    assert made["words"][3].endswith("\N{NO-BREAK SPACE}GB of memory")
    assert made["warning"] is None


def test_no_time_is_said_before_anything_was_measured():
    made = plan(CLIP, settings_from({"scale": 2}, "compact"), Model("compact"))
    assert made["seconds"] is None
    assert made["words"][2].endswith("of memory")


@pytest.mark.parametrize(
    ("least", "most", "words"),
    [
        (0.4, 0.9, "about 1 s"),
        (1.2, 2.1, "about 2 s"),
        (12.2, 17.9, "12 to 18 s"),
        (48, 83, "50 s to 1:20 min"),
        (62, 130, "1 to 2:10 min"),
        (1500, 3030, "25 to 50 min"),
        (3500, 7000, "1:00 to 1:55 h"),
    ],
)
def test_a_time_is_said_as_a_rounded_range(least: float, most: float, words: str):
    assert range_in_words(least, most) == words


def test_a_slow_plan_warns_and_says_what_to_do():
    model = Model("compact")
    model.timed(Effort(1.0, 1.0), 1_000_000)
    large = replace(CLIP, width=1280, height=720)
    assert "A scale of 2 would take" in plan(large, settings_from({}, "compact"), model)["warning"]
    long = plan(CLIP, settings_from({"scale": 1.5}, "compact"), model)
    assert "shorter part" in long["warning"]


@pytest.mark.parametrize(("width", "height", "scale"), [(640, 360, 4), (1280, 720, 2)])
def test_a_large_clip_is_suggested_twice(width: int, height: int, scale: float):
    assert suggested_scale(replace(CLIP, width=width, height=height)) == scale


def test_a_long_clip_is_suggested_in_part_and_a_short_one_whole():
    assert suggested_seconds(CLIP) == 5
    assert suggested_seconds(CLIP, most=3) == 3
    assert suggested_seconds(replace(CLIP, duration=Fraction(10))) is None
    assert suggested_seconds(replace(CLIP, duration=Fraction(4)), most=4) is None
    assert suggested_seconds(replace(CLIP, kind="image")) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (9, "9.0 s"), (75, "1:15 min"), (3700, "1:01:40 h")]
)
def test_times_are_said_in_words(seconds, words):
    assert time_in_words(seconds) == words


def moving(frames: int) -> list[torch.Tensor]:
    """A textured picture that moves by two pixels a frame."""
    ground = torch.rand(3, 64, 256, generator=torch.Generator().manual_seed(1))
    ground = torch.nn.functional.avg_pool2d(ground[None], 5, 1, 2)[0]
    return [ground[:, :, 2 * index : 2 * index + 128] for index in range(frames)]


def test_flicker_is_change_that_is_no_motion():
    measures = Measures()
    for index, frame in enumerate(moving(6)):
        flickering = (frame + 0.1 * (index % 2)).clamp(0, 1)
        measures.add(frame, flickering)
    steady, flickering = measures.flicker_bicubic[1:], measures.flicker_restored[1:]
    assert max(steady) < 3
    assert min(flickering) > 15
    assert measures.flicker_bicubic[0] == 0


def test_sharper_measures_sharper_and_equal_frames_do_not_differ():
    measures = Measures()
    sharp = (torch.arange(64) % 2).float().expand(3, 64, 64)
    measures.add(torch.full((3, 64, 64), 0.5), sharp)
    assert measures.sharpness_bicubic == [0]
    assert measures.sharpness_restored[0] == pytest.approx(255, rel=1e-3)
    assert measures.difference[0] == pytest.approx(127.5, rel=1e-3)


def test_the_profile_stays_small_for_a_long_clip():
    measures = Measures()
    frame = torch.zeros(3, 2, 2)
    for _ in range(MOST_ROWS + 5):
        measures.add(frame, frame)
    assert measures.profile().shape[1] <= 2 * (MOST_ROWS // 2 + 5)
    assert len(measures.as_lists()["flicker_restored"]) == MOST_ROWS + 5
