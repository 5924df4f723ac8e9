"""Estimates from past runs of this machine."""

from dataclasses import replace
from pathlib import Path

from dloral.options import UpscaleOptions
from dloral.studio.speeds import Run, Speeds

RUN = Run("compact", "auto", 1, "h264", pixels=100_000, frames=50, seconds=25.0)
OPTIONS = UpscaleOptions()


def test_a_run_like_a_past_one_takes_about_as_long():
    speeds = Speeds()
    speeds.add(RUN)
    least, most = speeds.estimate(OPTIONS, "h264", 100_000, 100)
    assert least < 50 < most
    assert most / least < 1.7


def test_runs_of_another_model_window_or_size_tell_nothing():
    speeds = Speeds()
    for other in (
        replace(RUN, model="sd21"),
        replace(RUN, vae="tiny"),
        replace(RUN, window=3),
        replace(RUN, pixels=900_000),
    ):
        speeds.add(other)
    assert speeds.estimate(OPTIONS, "h264", 100_000, 100) is None
    assert speeds.estimate(OPTIONS, "h264", 100_000, 100, part_cost=1e-6)[0] > 8


def test_the_nearest_runs_decide():
    speeds = Speeds()
    speeds.add(replace(RUN, pixels=390_000, seconds=400.0))
    for _ in range(5):
        speeds.add(RUN)
    least, most = speeds.estimate(OPTIONS, "h264", 100_000, 50)
    assert least < 25 < most < 40


def test_runs_are_kept_from_one_start_to_the_next_and_damage_is_left_out(tmp_path: Path):
    file = tmp_path / "home" / "speeds.json"
    Speeds(file).add(RUN)
    assert Speeds(file).estimate(OPTIONS, "h264", 100_000, 100) is not None
    file.write_text('[{"model": 1}]')
    assert Speeds(file).estimate(OPTIONS, "h264", 100_000, 100) is None


def test_a_run_too_short_to_tell_is_counted_and_left_out():
    speeds = Speeds()
    speeds.add(replace(RUN, seconds=0.1))
    assert (speeds.finished, speeds.frames) == (1, 50)
    assert speeds.estimate(OPTIONS, "h264", 100_000, 100) is None
