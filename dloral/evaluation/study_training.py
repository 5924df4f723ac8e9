"""Train and measure a study, run by run; finished work is kept and can be reported at any time.

A run lives in ``OUT/runs/VARIANT-SEED``. It resumes from its checkpoint after any kind of stop, and
once it is trained its model (``pipeline``) is measured clip by clip into ``result.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dloral.errors import PYTHON, DLoRALError, Face, OptionError
from dloral.evaluation.studies import Study, Variant
from dloral.evaluation.study_measuring import Figures, HeldOutClips, means
from dloral.evaluation.study_plan import (
    STAGES,
    Plan,
    StudyOptions,
    begun_seeds,
    configured,
    duration,
    opened_clips,
    planned,
    run_folder,
    told,
)
from dloral.files import write_json
from dloral.pipeline import DLoRALPipeline
from dloral.training.config import TrainConfig
from dloral.training.run import run_training
from dloral.weights.loading import load_pipeline

RESULT = "result.json"
SHOWN = "shown.png"
HELD_OUT = "held_out.json"

Found = dict[str, Any]


def train_study(
    study: Study,
    options: StudyOptions,
    out: Path,
    tell: Callable[[str], None],
    face: Face = PYTHON,
    on_run: Callable[[Found], None] = lambda _found: None,
) -> Found:
    """Train and measure every variant and seed that ``out`` has no result for.

    How long that will take is reported first. After each run ``on_run`` gets the results so far, as
    :func:`gathered` returns them; what it raises is reported, and the study continues. A stop is a
    :class:`CancelledError` or a ``KeyboardInterrupt`` (Ctrl-C, SIGTERM); the same call resumes.
    """
    held_out = opened_clips(options, face)
    for name, why in held_out.suite.unavailable.items():
        tell(f"NOT AVAILABLE {name}: {why}")
    plan = planned(study, options, out, held_out, tell)
    for line in told(study, plan):
        tell(line)
    if not (out / HELD_OUT).is_file():
        write_json(out / HELD_OUT, _about(held_out))
    waiting = [
        (seed, variant)
        for seed in options.seeds_of(study)
        for variant in study.variants
        if not (run_folder(out, variant, seed) / RESULT).is_file()
    ]
    total = len(plan.seeds) * len(study.variants)
    for number, (seed, variant) in enumerate(waiting):
        left = sum(plan.seconds(study, later) for _, later in waiting[number:])
        done = len(_results(study, plan, out))
        tell(
            f"run {done + 1} of {total}: {variant.title}, seed {seed}; "
            f"about {duration(left)} left in total"
        )
        _run(study, variant, seed, plan, options.config, held_out, run_folder(out, variant, seed))
        try:
            on_run(gathered(study, out))
        except Exception as error:  # a failed report must not end hours of training
            why = error.render(face) if isinstance(error, DLoRALError) else repr(error)
            tell(f"the report after this run could not be made ({why}); the run itself is kept")
    return gathered(study, out)


def gathered(study: Study, out: Path) -> Found:
    """The results of the finished runs, as stored in ``OUT/study.json``.

    Raises :class:`OptionError` for a folder that holds no run of this study.
    """
    plan = Plan.load(out)
    if plan is not None:  # another call, with other seeds, may have dropped these meanwhile
        plan = replace(plan, seeds=tuple(sorted({*plan.seeds, *begun_seeds(study, out)})))
    runs = [] if plan is None else _results(study, plan, out)
    if plan is None or not runs or not (out / HELD_OUT).is_file():
        raise OptionError("{path} holds no finished run of a study", path=out)
    about = json.loads((out / HELD_OUT).read_text(encoding="utf-8"))
    return {
        "study": study.name,
        "kind": "training",
        "steps": plan.steps,
        "stages": STAGES,
        "seeds": list(plan.seeds),
        "planned_runs": len(plan.seeds) * len(study.variants),
        **about,
        "runs": runs,
    }


def _about(held_out: HeldOutClips) -> Found:
    return {
        "metrics": held_out.metrics,
        "unavailable": held_out.suite.unavailable,
        "held_out": held_out.name,
        "num_clips": held_out.count,
        "num_frames": held_out.num_frames,
        "sources": held_out.sources,
        "truth": held_out.truth(),
    }


def _results(study: Study, plan: Plan, out: Path) -> list[Found]:
    paths = [
        run_folder(out, variant, seed) / RESULT for seed in plan.seeds for variant in study.variants
    ]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def _run(
    study: Study,
    variant: Variant,
    seed: int,
    plan: Plan,
    base: TrainConfig,
    held_out: HeldOutClips,
    run: Path,
) -> None:
    """One variant with one seed: trained and measured along the way, then clip by clip."""
    config = configured(base, study, variant, plan.steps, seed)

    def measure(pipe: DLoRALPipeline) -> dict[str, float]:
        figures = means(held_out.measured(pipe, variant.scales))
        pipe.unet.unmerge()  # training continues with live LoRAs
        return figures

    trained = run_training(config, run, measure=measure)
    pipe = load_pipeline(str(trained), dtype="float32")
    clips = held_out.measured(pipe, variant.scales, run / SHOWN)
    windows: dict[str, Figures] = {}
    for window in study.windows:
        same = window == variant.window
        scales = replace(variant.scales, window=window)
        windows[str(window)] = clips if same else held_out.measured(pipe, scales)
    found = {
        "variant": variant.name,
        "seed": seed,
        "steps": config.loop.steps,
        "seconds": round(_seconds(run), 1),
        "points": _points(run),
        "final": means(clips),
        "clips": clips,
        "windows": windows,
        "stages": _stages(config),
    }
    write_json(run / RESULT, found)


def _log(run: Path) -> list[Found]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def _points(run: Path) -> list[Found]:
    """Figures along the run. Where a resumed run logged a step again, the later entry counts."""
    points = {entry["step"]: entry["held_out"] for entry in _log(run) if "held_out" in entry}
    return [{"step": step, **points[step]} for step in sorted(points)]


def _seconds(run: Path) -> float:
    """Seconds of training and measuring on the way; the log's clock restarts on resuming."""
    times = [entry["seconds"] for entry in _log(run) if "seconds" in entry]
    ends = [now for now, later in zip(times, [*times[1:], -1.0], strict=True) if later < now]
    return float(sum(ends))


def _stages(config: TrainConfig) -> list[list[Any]]:
    """[stage, the step before its first], in order."""
    schedule, steps = config.algorithm.plan(), config.loop.steps
    stages = [schedule.stage_at(step) for step in range(1, steps + 1)]
    return [[stages[i], i] for i in range(steps) if not i or stages[i] != stages[i - 1]]
