"""Estimates from past runs of this machine, from its pace, and from a run's own frames."""

from dataclasses import replace
from pathlib import Path

import pytest

from dloral.options import UpscaleOptions
from dloral.studio.speeds import FIRST_FRAMES, Effort, Forecast, Run, Speeds, work_of

SIZE = (250, 400)
OPTIONS = UpscaleOptions()
RUN = Run("compact", "auto", 1, "h264", pixels=100_000, frames=50, seconds=25.0)
RUN = replace(RUN, work=work_of(OPTIONS, SIZE) * (50 + FIRST_FRAMES), processor=25.0)


def middle(told: tuple[float, float] | None) -> float:
    assert told is not None
    return (told[0] * told[1]) ** 0.5


def test_a_run_like_a_past_one_takes_about_as_long():
    speeds = Speeds()
    speeds.add(RUN)
    speeds.paced(Effort(2.0, 2.0))
    least, most = speeds.estimate(OPTIONS, "h264", SIZE, 50)
    assert middle((least, most)) == pytest.approx(25, rel=0.02)
    assert least < 25 < most
    assert most / least < 1.4
    assert middle(speeds.estimate(OPTIONS, "h264", SIZE, 100)) == pytest.approx(49.3, rel=0.02)


def test_a_machine_that_is_busy_now_takes_longer_and_is_less_sure():
    calm, busy = Speeds(), Speeds()
    for speeds in (calm, busy):
        speeds.add(RUN)
    calm.paced(Effort(1.0, 1.0))
    busy.paced(Effort(4.0, 1.0))
    told, longer = (s.estimate(OPTIONS, "h264", SIZE, 50) for s in (calm, busy))
    # a quarter of the processor for now, and more of it again some time
    assert 2.5 * middle(told) < middle(longer) < 4 * middle(told)
    assert longer[1] / longer[0] > 1.3 * told[1] / told[0]


def test_an_old_pace_counts_where_there_is_no_newer():
    speeds = Speeds()
    speeds.paced(Effort(4.0, 1.0), now=0)
    assert speeds.pace(now=10) == (pytest.approx(0.25), pytest.approx(0))
    pace, off = speeds.pace(now=1000)
    assert (pace, off) == (pytest.approx(0.25), pytest.approx(0.3))
    speeds.paced(Effort(1.0, 1.0), now=1000)
    assert speeds.pace(now=1001)[0] == pytest.approx(1)


def test_where_the_work_is_done_elsewhere_the_clock_counts():
    speeds = Speeds()
    speeds.add(replace(RUN, processor=0.01))
    speeds.paced(Effort(3.0, 0.0))
    assert middle(speeds.estimate(OPTIONS, "h264", SIZE, 50)) == pytest.approx(25, rel=0.02)


def test_runs_of_another_model_window_or_size_tell_nothing():
    speeds = Speeds()
    for other in (
        replace(RUN, model="sd21"),
        replace(RUN, vae="tiny"),
        replace(RUN, window=3),
        replace(RUN, pixels=900_000),
    ):
        speeds.add(other)
    assert speeds.estimate(OPTIONS, "h264", SIZE, 100) is None
    assert speeds.estimate(OPTIONS, "h264", SIZE, 100, part_cost=1e-6)[0] > 5


def test_the_nearest_runs_decide():
    speeds = Speeds()
    speeds.add(replace(RUN, pixels=390_000, processor=400.0, seconds=400.0))
    for _ in range(5):
        speeds.add(RUN)
    least, most = speeds.estimate(OPTIONS, "h264", SIZE, 50)
    assert least < 25 < most < 40


def test_tiles_that_overlap_are_more_work():
    whole, tiled = work_of(OPTIONS, (768, 768)), work_of(OPTIONS, (768, 1024))
    assert 1.4 < tiled / whole < 2  # a third more pixels, in two tiles of the whole's size
    assert work_of(replace(OPTIONS, tile=None), (768, 1024)) < tiled


def test_runs_are_kept_from_one_start_to_the_next_and_damage_is_left_out(tmp_path: Path):
    file = tmp_path / "home" / "speeds.json"
    Speeds(file).add(RUN)
    assert middle(Speeds(file).estimate(OPTIONS, "h264", SIZE, 50)) == pytest.approx(25, rel=0.1)
    file.write_text('[{"model": 1}]')
    assert Speeds(file).estimate(OPTIONS, "h264", SIZE, 100) is None


def test_a_run_of_an_earlier_version_still_tells(tmp_path: Path):
    """It has no work and no processor time."""
    speeds = Speeds()
    speeds.add(replace(RUN, work=None, processor=None))
    assert middle(speeds.estimate(OPTIONS, "h264", SIZE, 50)) == pytest.approx(25, rel=0.2)


def test_a_run_too_short_to_tell_is_counted_and_left_out():
    speeds = Speeds()
    speeds.add(replace(RUN, seconds=0.1))
    assert (speeds.finished, speeds.frames) == (1, 50)
    assert speeds.estimate(OPTIONS, "h264", SIZE, 100) is None


def test_a_running_job_corrects_its_estimate_by_its_own_frames():
    forecast = Forecast(frames=100, estimate=(80.0, 120.0))
    assert middle(forecast.left(0)) == pytest.approx(98, rel=0.05)
    for done in range(1, 51):  # it really takes 3 s a frame
        forecast.frame(done, now=3.0 * done)
    least, most = forecast.left(now=150.0)
    assert least < 150 < most
    assert middle((least, most)) == pytest.approx(150, rel=0.05)
    assert most / least < 1.25
    for done in range(51, 71):  # and then the machine is free
        forecast.frame(done, now=150.0 + done - 50)
    assert middle(forecast.left(now=170.0)) < 60


def test_nobody_knows_how_long_a_clip_of_unknown_length_takes():
    forecast = Forecast(frames=None, estimate=None)
    forecast.frame(1, now=0.0)
    forecast.frame(2, now=1.0)
    assert forecast.left(now=1.0) is None
    assert Forecast(frames=10, estimate=None).left(0) is None
