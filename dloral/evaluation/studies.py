"""The appendix's four studies: which variants each compares, and how they are trained and measured.

Every variant is a configuration of ``dloral train`` and differs from the others in one setting.
All variants and seeds of a study train for the same number of steps, which a budget in minutes sets
from a few timed steps of the slowest variant. Runs go on from their checkpoints; finished ones are
kept.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dloral.data.packs import Pack
from dloral.errors import PYTHON, Face, OptionError, Setting
from dloral.evaluation.catalogue import MetricSuite, Settings, chosen_metrics
from dloral.evaluation.published import A1_TEXT, TABLE_A1, TABLE_A2, TABLE_A3
from dloral.evaluation.restore import Scales, model_restorer, restore_and_measure
from dloral.files import write_json
from dloral.frames.clips import as_bytes
from dloral.pipeline import DLoRALPipeline
from dloral.training.config import TrainConfig
from dloral.training.run import run_training

CALIBRATION_STEPS = 6
"""Steps of the slowest variant that are timed; the first three are for the machine to warm up."""

MARGIN = 0.8
"""Of a budget that goes into training and measuring; checkpoints and starting take the rest."""

POINTS = 8  # measurements along a run
STAGES = 4  # as in Figure A1: consistency, enhancement, consistency, enhancement
MOST_CLIPS = 6
RESULT = "result.json"
SHOWN = "shown.png"
METRICS = ("psnr", "lpips_like", "niqe", "warping_error", "flicker", "grid_level")


@dataclass(frozen=True)
class Variant:
    """``changes`` of the algorithm's settings; restored with these scales and this window."""

    name: str
    title: str
    changes: Mapping[str, Any]
    consistency: float = 1.0
    detail: float = 1.0
    window: int = 1

    @property
    def scales(self) -> Scales:
        return Scales(self.consistency, self.detail, self.window)


@dataclass(frozen=True)
class Study:
    """``claims``: (measure, variant, variant): by it the paper's first is better than its second.
    "quality" stands for the measure of quality that is at hand."""

    name: str
    title: str
    variants: tuple[Variant, ...]
    claims: tuple[tuple[str, str, str], ...]
    published: Mapping[str, tuple[float, ...]]
    note: str = ""


STUDIES = {
    "strategies": Study(
        "strategies",
        "Training strategies (Figure A1)",
        (
            Variant("joint", "(a) one space, joint", {"strategy": "joint"}, detail=0.0),
            Variant(
                "alternating",
                "(b) one space, alternating",
                {"strategy": "alternating-one-space"},
                detail=0.0,
            ),
            Variant("dual", "(c) two LoRAs, alternating", {"strategy": "dual"}),
        ),
        (("quality", "dual", "joint"), ("quality", "dual", "alternating")),
        {},
        A1_TEXT,
    ),
    "branches": Study(
        "branches",
        "LoRA branches (Table A1)",
        (
            Variant("C-only", "C-LoRA only", {"branches": "C-only"}, detail=0.0),
            Variant("D-only", "D-LoRA only", {"branches": "D-only"}, consistency=0.0),
            Variant("both", "C+D LoRA", {"branches": "both"}),
        ),
        (
            *(("quality", "both", "D-only"), ("quality", "D-only", "C-only")),
            *(("warping_error", "C-only", "both"), ("warping_error", "both", "D-only")),
        ),
        TABLE_A1,
    ),
    "order": Study(
        "order",
        "Order of the stages (Table A2)",
        (
            Variant("enhancement-first", "Enhancement first", {"order": "enhancement-first"}),
            Variant("consistency-first", "Consistency first", {"order": "consistency-first"}),
        ),
        (
            ("quality", "consistency-first", "enhancement-first"),
            ("warping_error", "enhancement-first", "consistency-first"),
        ),
        TABLE_A2,
    ),
    "windows": Study(
        "windows",
        "Temporal window of CFR (Table A3)",
        tuple(
            Variant(str(n), "0 (without CFR)" if not n else str(n), {"window": n}, window=n)
            for n in (0, 1, 3, 5)
        ),
        (
            *(("quality", "1", "0"), ("quality", "1", "3"), ("quality", "3", "5")),
            *(("warping_error", "1", "0"), ("warping_error", "5", "1")),
        ),
        TABLE_A3,
    ),
}


@dataclass(frozen=True)
class StudyOptions:
    """``config``: what all variants share; ``held_out``: a pack that none of them trains on.

    ``steps``: of every run; None: as many as ``budget`` minutes for the whole study allow.
    """

    config: TrainConfig
    held_out: Path
    metrics: tuple[str, ...] = METRICS
    seeds: int = 3
    budget: float | None = None
    steps: int | None = None
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise OptionError(
                "{option} is {value}",
                remedy="give 1 or more",
                option=Setting("seeds"),
                value=self.seeds,
            )
        if self.steps is None and self.budget is None:
            raise OptionError(
                "the length of the runs is not given",
                remedy="give {budget} in minutes for the whole study, or {steps}",
                budget=Setting("budget"),
                steps=Setting("steps"),
            )
        if self.budget is not None and not self.budget > 0:
            raise OptionError(
                "{option} is {value}",
                remedy="give more than 0 minutes",
                option=Setting("budget"),
                value=self.budget,
            )


def train_study(
    study: Study,
    options: StudyOptions,
    out: Path,
    tell: Callable[[str], None],
    face: Face = PYTHON,
) -> dict[str, Any]:
    """Train and measure every variant and seed; what was found, as ``OUT/study.json`` has it."""
    pack = Pack(options.held_out)
    metrics = chosen_metrics(options.metrics, has_reference=True)
    # Slow measures see a clip's first frame.
    ready = MetricSuite(Settings(metrics=metrics, every=max(1, pack.hq.shape[1])), face)
    for name, why in ready.unavailable.items():
        tell(f"NOT AVAILABLE {name}: {why}")
    out.mkdir(parents=True, exist_ok=True)
    steps = _steps(study, options, out, partial(_figures, pack=pack, ready=ready), tell)
    runs = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for variant in study.variants:
            run = out / "runs" / f"{variant.name}-{seed}"
            config = configured(options.config, variant, steps, seed)
            result = run / RESULT
            if not result.is_file():
                tell(f"{study.name}: {variant.title}, seed {seed}, {steps} steps")
                started = time.perf_counter()
                figures = partial(_figures, pack=pack, ready=ready, variant=variant, run=run)
                run_training(config, run, measure=figures)
                found = _result(variant, seed, run, config, time.perf_counter() - started)
                write_json(result, found)
            runs.append(json.loads(result.read_text()))
    return {
        "study": study.name,
        "kind": "training",
        "steps": steps,
        "seeds": options.seeds,
        "metrics": [spec.name for spec in ready.specs],
        "unavailable": ready.unavailable,
        "held_out": options.held_out.name,
        "num_clips": min(len(pack.hq), MOST_CLIPS),
        "runs": runs,
    }


def configured(base: TrainConfig, variant: Variant, steps: int, seed: int) -> TrainConfig:
    """The variant's training: its setting changed, its stages as long as the run allows."""
    stage = max(1, steps // STAGES)
    schedule = replace(
        base.algorithm.schedule,
        consistency_steps=stage,
        enhancement_steps=stage,
        transition_steps=stage // 5,
        switches=None,
    )
    algorithm = replace(base.algorithm, schedule=schedule, **variant.changes)
    interval = max(1, -(-steps // POINTS))
    loop = replace(
        base.loop,
        steps=steps,
        seed=seed,
        warmup_steps=min(base.loop.warmup_steps, stage // 4),
        decay_steps=0,
        # an average over more than a stage would hide the stages
        ema=min(base.loop.ema, 1 - 10 / max(stage, 11)),
        evaluate_every=interval,
        checkpoint_every=interval,
        log_every=max(1, interval // 4),
    )
    return replace(base, algorithm=algorithm, loop=loop, save_pipeline=False)


def _steps(
    study: Study,
    options: StudyOptions,
    out: Path,
    figures: Callable[..., dict[str, float]],
    tell: Callable[[str], None],
) -> int:
    """How long each run is: asked for, as when the study began, or as the budget allows."""
    kept = out / "plan.json"
    if kept.is_file():
        known = int(json.loads(kept.read_text())["steps"])
        if options.steps not in (None, known):
            raise OptionError(
                "{path} holds a study of {value} steps a run",
                remedy="give {option}, or a new folder",
                path=out,
                value=known,
                option=Setting("steps", known),
            )
        return known
    steps = options.steps
    if steps is None:
        assert options.budget is not None
        seconds, measuring = _pace(study, options, figures)
        share = 60 * MARGIN * options.budget / (len(study.variants) * options.seeds)
        steps = max(STAGES, int((share - (POINTS + 1) * measuring) / seconds))
        tell(
            f"{seconds:.2f} s a step, {measuring:.1f} s a measurement: {steps} steps a run "
            f"fit into {options.budget:g} minutes"
        )
    write_json(kept, {"steps": steps})
    return steps


def _pace(
    study: Study, options: StudyOptions, figures: Callable[..., dict[str, float]]
) -> tuple[float, float]:
    """(seconds a step, seconds a measurement) of the slowest variant, the last of a study."""
    variant = study.variants[-1]
    config = configured(options.config, variant, CALIBRATION_STEPS, 0)
    config = replace(config, loop=replace(config.loop, evaluate_every=CALIBRATION_STEPS))
    times: list[float] = []
    spent: list[float] = []

    def measured(pipe: DLoRALPipeline) -> dict[str, float]:
        started = time.perf_counter()
        found = figures(pipe, variant=variant)
        spent.append(time.perf_counter() - started)
        return found

    with tempfile.TemporaryDirectory() as folder:
        run_training(
            config,
            Path(folder) / "run",
            measure=measured,
            on_step=lambda _step, _losses: times.append(time.perf_counter()),
        )
    half = len(times) // 2
    return float(np.median(np.diff(times[half - 1 :]))), max(spent)


def _figures(
    pipe: DLoRALPipeline,
    *,
    pack: Pack,
    ready: MetricSuite,
    variant: Variant,
    run: Path | None = None,
) -> dict[str, float]:
    """The held-out clips' mean figures; what was restored is kept in ``run`` for a sheet."""
    totals: list[dict[str, float]] = []
    shown = []
    restorer = model_restorer(pipe, variant.scales)
    for index in range(min(len(pack.hq), MOST_CLIPS)):
        hq_frames, _ = pack.clip(index)
        small_frames = torch.from_numpy(np.array(pack.lq[index])).float() / 255
        height, width = hq_frames.shape[-2:]
        found = restore_and_measure(restorer, small_frames, (height, width), ready, hq_frames)
        totals.append(found.measured.totals)
        assert found.last.hq is not None
        assert found.last.lq is not None
        shown.append(torch.cat([found.last.lq, found.last.restored, found.last.hq], dim=2))
    pipe.unet.unmerge()  # training goes on with live LoRAs
    if run is not None:
        Image.fromarray(as_bytes(torch.cat(shown, dim=1))).save(run / SHOWN)
    return {
        name: float(np.mean([one[name] for one in totals if name in one]))
        for name in dict.fromkeys(name for one in totals for name in one)
    }


def _result(
    variant: Variant, seed: int, run: Path, config: TrainConfig, seconds: float
) -> dict[str, Any]:
    """Of a finished run: figures over its steps, and when each stage was trained."""
    points: dict[int, dict[str, float]] = {}
    for line in (run / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "held_out" in entry:  # a run that went on logged some steps twice; the later counts
            points[entry["step"]] = entry["held_out"]
    schedule, steps = config.algorithm.plan(), config.loop.steps
    stages = [schedule.stage_at(step) for step in range(1, steps + 1)]
    starts = [i for i in range(steps) if not i or stages[i] != stages[i - 1]]
    return {
        "variant": variant.name,
        "seed": seed,
        "seconds": round(seconds, 1),
        "points": [{"step": step, **points[step]} for step in sorted(points)],
        "final": points[max(points)],
        "stages": [[stages[i], i] for i in starts],
    }
