"""Plans of studies: what runs are made of, how long they take, what a later call may change."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dloral.errors import OptionError
from dloral.evaluation.studies import STUDIES
from dloral.evaluation.study_plan import (
    SET_BY_STUDY,
    STAGES,
    TIMED_STEPS,
    Pace,
    Plan,
    StudyOptions,
    _budgeted,
    _fitting,
    _settings,
    _timed_config,
    configured,
    planned,
    run_seconds,
    steps_of,
    whole_steps,
)
from dloral.training.recipes import COMPACT

HELD: Any = SimpleNamespace(name="held", digest="0" * 64, metrics=["psnr"])
OPTIONS = StudyOptions(COMPACT, Path("held"), steps=16)


def test_a_budget_is_kept() -> None:
    """Of a plan's own reckoning: the steps that fit, and no more."""
    study = STUDIES["branches"]
    pace = {variant.name: Pace(1.5, 30.0) for variant in study.variants}
    for seconds in (500.0, 900.0, 6000.0):
        steps = _fitting(study, pace, seconds)
        unit = 16 if steps >= 16 else 4
        assert steps == whole_steps(steps)
        took = [
            sum(run_seconds(study, v, n, pace[v.name]) for v in study.variants)
            for n in (steps, steps + unit)
        ]
        assert took[0] <= seconds < took[1]
    plan = Plan(whole_steps(steps), (0,), {}, pace)
    assert plan.steps % 16 == 0
    assert plan.seconds(study, study.variants[-1]) < plan.steps * 1.5 + 18 * 30


def test_a_budget_below_the_shortest_runs_is_refused_with_the_least() -> None:
    study = STUDIES["branches"]
    pace = {variant.name: Pace(1.5, 30.0) for variant in study.variants}
    with pytest.raises(OptionError, match=r"budget is 10\.0") as refused:
        _budgeted(study, pace, 10.0, seeds=5)
    least = refused.value.facts["least"].value
    assert f"give budget={least} or more" in str(refused.value)
    assert _budgeted(study, pace, least, seeds=5) == STAGES
    with pytest.raises(OptionError):
        _budgeted(study, pace, least - 1, seeds=5)
    for budget in (0.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="budget is"):
            StudyOptions(COMPACT, Path("held"), budget=budget)


@pytest.mark.parametrize("steps", [4, 8, 12, 16, 48])
def test_measurements_are_charged_as_they_are_made(steps: int) -> None:
    """At the steps at which the trainer evaluates, and at the end with every window."""
    for study in STUDIES.values():
        for variant in study.variants:
            loop = configured(COMPACT, study, variant, steps, 0).loop
            due = [n for n in range(1, loop.steps + 1) if n % loop.evaluate_every == 0]
            assert due[-1] == loop.steps
            charged = run_seconds(study, variant, steps, Pace(0.0, 1.0))
            assert charged == len(due) + max(1, len(study.windows))


def test_nothing_is_written_between_the_steps_that_are_timed() -> None:
    for study in STUDIES.values():
        for variant in study.variants:
            loop = _timed_config(study, variant, COMPACT).loop
            assert loop.steps == TIMED_STEPS
            assert min(loop.checkpoint_every, loop.log_every, loop.evaluate_every) >= TIMED_STEPS


def kept_plan(out: Path, seeds: tuple[int, ...] = (0,)) -> None:
    """A study of the order that was begun with OPTIONS."""
    settings = _settings(STUDIES["order"], OPTIONS, HELD)
    Plan(16, seeds, settings, {}).save(out)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.1},
        {"micro_batches": 3},
        {"ema": 0.5},
        {"warmup_steps": 7},
        {"gradient_clip": 0.3},
        {"betas": (0.5, 0.9)},
        {"weight_decay": 0.1},
        {"rate_factors": {"retrieval.": 0.5}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_runs_of_one_study_train_alike(change: dict[str, Any], tmp_path: Path) -> None:
    """A second call with another loop is refused, but for what a study sets itself."""
    kept_plan(tmp_path)
    other = replace(OPTIONS, config=replace(COMPACT, loop=replace(COMPACT.loop, **change)))
    with pytest.raises(OptionError, match=f"loop.{next(iter(change))} was"):
        planned(STUDIES["order"], other, tmp_path, HELD, print)
    loop = replace(COMPACT.loop, **dict.fromkeys(SET_BY_STUDY, 3))
    plan = planned(
        STUDIES["order"],
        replace(OPTIONS, config=replace(COMPACT, loop=loop)),
        tmp_path,
        HELD,
        print,
    )
    assert plan.steps == 16


def test_seeds_that_were_never_begun_are_taken_back(tmp_path: Path) -> None:
    """--seeds 50 by mistake, stopped in the second seed; then --seeds 1, and another."""
    kept_plan(tmp_path, tuple(range(50)))
    for run in ("enhancement-first-0", "consistency-first-0", "consistency-first-1"):
        (tmp_path / "runs" / run).mkdir(parents=True)
    plan = planned(STUDIES["order"], replace(OPTIONS, seeds=1), tmp_path, HELD, print)
    assert plan.seeds == (0, 1)
    assert Plan.load(tmp_path).seeds == (0, 1)
    plan = planned(STUDIES["order"], replace(OPTIONS, seeds=1, seed=5), tmp_path, HELD, print)
    assert plan.seeds == (0, 1, 5)


def test_variants_differ_in_their_setting_alone() -> None:
    for study in STUDIES.values():
        made = [configured(COMPACT, study, v, 1600, 0).algorithm for v in study.variants]
        for variant, one in zip(study.variants, made, strict=True):
            for name, value in variant.changes.items():
                assert getattr(one, name) == value
            same = set(vars(one)) - set(variant.changes)
            assert all(getattr(one, name) == getattr(made[0], name) for name in same)
        assert made[0].schedule.consistency_steps == 400


def test_swings_within_a_stage_are_measured_where_a_claim_needs_them() -> None:
    for study in STUDIES.values():
        swings = any(claim.swings for claim in study.claims)
        loop = configured(COMPACT, study, study.variants[-1], 1600, 0).loop
        assert loop.steps // loop.evaluate_every == (16 if swings else 4)
        assert loop.checkpoint_every == 100


def test_one_stage_alone_trains_as_long_as_in_both() -> None:
    """Steps of each stage, counted in the schedules themselves."""
    alone = {}
    study = STUDIES["branches"]
    for variant in study.variants:
        config = configured(COMPACT, study, variant, 160, 0)
        plan = config.algorithm.plan()
        stages = [plan.stage_at(step) for step in range(1, config.loop.steps + 1)]
        alone[variant.name] = {stage: stages.count(stage) for stage in set(stages)}
    assert alone["both"] == alone["C-only"] | alone["D-only"]
    assert steps_of(STUDIES["branches"].variants[0], 160) == 80


def test_a_number_of_seeds_is_a_study_s_own() -> None:
    options = StudyOptions(COMPACT, Path("held"), steps=16)
    assert len(options.seeds_of(STUDIES["strategies"])) == 5
    assert len(options.seeds_of(STUDIES["order"])) == 7
    assert replace(options, seeds=2, seed=3).seeds_of(STUDIES["order"]) == [3, 4]
