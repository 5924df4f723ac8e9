"""A run's progress bar."""

import time

import pytest

from dloral.data import pool
from dloral.training.monitor import Monitor


@pytest.fixture
def monitor(tmp_path):
    with Monitor(tmp_path, steps=100, first_step=40, log_every=10, writes=True) as monitor:
        yield monitor


def test_time_left_is_that_of_steps_not_of_what_the_first_one_prepares(monitor):
    time.sleep(1)  # pools of clips and answers
    for step in range(41, 46):
        monitor.step(step, {}, learning_rate=1e-3, stage="")
        time.sleep(0.02)
    told = monitor.bar.format_dict
    assert told["n"] == 45
    done = told["n"] - told["initial"]
    assert done == 4
    assert done / told["elapsed"] > 10  # the preparation too: 4 steps a second at most


def test_a_process_that_tells_nothing_counts_steps(tmp_path):
    with Monitor(tmp_path, steps=2, first_step=0, log_every=1, writes=False) as monitor:
        monitor.step(1, {"loss": 1.0}, learning_rate=1e-3, stage="")
    assert not list(tmp_path.iterdir())


def test_long_preparations_have_a_bar(monkeypatch, capsys):
    assert list(pool.preparing(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(pool, "QUIET_SECONDS", 0.01)
    for _ in pool.preparing(range(3)):
        time.sleep(0.05)
    assert "preparing" in capsys.readouterr().err
