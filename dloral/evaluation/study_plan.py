"""How long a study's runs are, how they are configured, and how long they will take.

All variants and seeds of a study train for the same number of steps (a single-stage variant for
that stage's share), in four stages as in Figure A1, and are measured at the same steps. The plan
is written when a study begins; later calls keep to it.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from dloral.errors import PYTHON, Face, OptionError, Setting
from dloral.evaluation.studies import Study, Variant
from dloral.evaluation.study_measuring import HeldOutClips
from dloral.files import write_json
from dloral.pipeline import DLoRALPipeline
from dloral.training.config import TrainConfig, flat
from dloral.training.run import run_training, settings_of

METRICS = ("psnr", "lpips_like", "niqe", "warping_error", "flicker", "grid_level")
STAGES = 4
"""As in Figure A1: consistency, enhancement, consistency, enhancement."""

QUARTERS = 4
"""Of a stage, of the same number of steps each: a run is saved at their ends."""

SET_BY_STUDY = (
    *("steps", "seed", "decay_steps"),
    *("evaluate_every", "checkpoint_every", "log_every"),
)
"""Settings of the loop that :func:`configured` replaces, whatever they were."""

MOST_SEED = 2**31

TIMED_STEPS = 8
"""Of each variant; the first half is for the machine to warm up. Each stage has two of the rest."""

MARGIN = 0.9
"""Of a budget that is planned for; checkpoints and starting take the rest."""

PLAN = "plan.json"
FORMAT = 2


@dataclass(frozen=True)
class StudyOptions:
    """``config``: what all variants share; ``held_out``: a pack that none of them trains on.

    ``steps``: of every run; None: as many as ``budget`` minutes for the whole study allow.
    ``seeds``: per variant; None: the study's own number. ``seed``: the first of them.
    Raises :class:`OptionError`.
    """

    config: TrainConfig
    held_out: Path
    metrics: tuple[str, ...] = METRICS
    seeds: int | None = None
    budget: float | None = None
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("steps", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value < MOST_SEED:
                raise OptionError(
                    "{option} is {value}",
                    remedy=f"give a whole number from {least} to less than {MOST_SEED}",
                    option=Setting(name),
                    value=value,
                )
        if self.steps is None and self.budget is None:
            raise OptionError(
                "the length of the runs is not given",
                remedy="give {budget} in minutes for the whole study, or {steps}",
                budget=Setting("budget"),
                steps=Setting("steps"),
            )
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise OptionError(
                "{option} is {value}",
                remedy="give a number of minutes above 0",
                option=Setting("budget"),
                value=self.budget,
            )

    def seeds_of(self, study: Study) -> list[int]:
        """The seeds of every variant."""
        count = study.seeds if self.seeds is None else self.seeds
        return list(range(self.seed, self.seed + count))


@dataclass(frozen=True)
class Pace:
    """Seconds per training step, and seconds to measure all held-out clips once."""

    step: float
    measurement: float


@dataclass(frozen=True)
class Plan:
    """What every call of a study keeps to; ``pace``: by variant, as timed at the beginning."""

    steps: int
    seeds: tuple[int, ...]
    settings: Mapping[str, str]
    pace: Mapping[str, Pace]

    def seconds(self, study: Study, variant: Variant) -> float:
        """How long a run of a variant will take."""
        return run_seconds(study, variant, self.steps, self.pace[variant.name])

    def save(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / PLAN, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, out: Path) -> Self | None:
        """The plan in a folder, None if there is none; :class:`OptionError` for an old one."""
        if not (out / PLAN).is_file():
            return None
        found = json.loads((out / PLAN).read_text(encoding="utf-8"))
        if found.get("format") != FORMAT:
            raise OptionError(
                "{path} holds a study of another version of this program",
                remedy="give a new folder",
                path=out,
            )
        pace = {name: Pace(**one) for name, one in found["pace"].items()}
        return cls(found["steps"], tuple(found["seeds"]), found["settings"], pace)


def planned(
    study: Study,
    options: StudyOptions,
    out: Path,
    held_out: HeldOutClips,
    tell: Callable[[str], None],
) -> Plan:
    """The plan in ``out``, or a new one, timed and saved.

    A plan's seeds are this call's and those that have runs; others that an earlier call planned
    are dropped. Raises :class:`OptionError` where ``out`` holds a study with other settings.
    """
    kept, seeds = Plan.load(out), set(options.seeds_of(study))
    settings = _settings(study, options, held_out)
    if kept is None:
        plan = timed(study, options, held_out, tell)
    else:
        wanted = None if options.steps is None else whole_steps(options.steps)
        _check(out, kept, settings, wanted)
        plan = replace(kept, seeds=tuple(sorted(seeds | begun_seeds(study, out))))
    plan.save(out)
    return plan


def run_folder(out: Path, variant: Variant, seed: int) -> Path:
    """The folder of a run."""
    return out / "runs" / f"{variant.name}-{seed}"


def begun_seeds(study: Study, out: Path) -> set[int]:
    """Seeds for which some variant has a run in ``out``, finished or not."""
    return {
        int(seed)
        for variant in study.variants
        for folder in (out / "runs").glob(f"{variant.name}-*")
        if (seed := folder.name.removeprefix(f"{variant.name}-")).isdecimal()
    }


def timed(
    study: Study, options: StudyOptions, held_out: HeldOutClips, tell: Callable[[str], None]
) -> Plan:
    """Time a few steps of every variant and a measurement of one clip; return the plan.

    Raises :class:`OptionError` for a budget too small for the shortest runs.
    """
    pace = {}
    for variant in study.variants:
        tell(f"timing {TIMED_STEPS} steps of {variant.title}")
        pace[variant.name] = _pace(study, variant, options.config, held_out)
    seeds = options.seeds_of(study)
    steps = options.steps
    if steps is None:
        assert options.budget is not None
        steps = _budgeted(study, pace, options.budget, len(seeds))
    whole = whole_steps(steps)
    if whole != steps:
        tell(f"{steps} steps a run are made {whole}, so that stages are measured at their ends")
    return Plan(whole, tuple(seeds), _settings(study, options, held_out), pace)


def told(study: Study, plan: Plan) -> list[str]:
    """How long all runs of a plan will take, as lines of text."""
    lines = []
    for variant in study.variants:
        pace = plan.pace[variant.name]
        lines.append(
            f"{variant.title}: {pace.step:.2f} s a step, {pace.measurement:.0f} s a measurement; "
            f"{steps_of(variant, plan.steps)} steps: {duration(plan.seconds(study, variant))} a run"
        )
    total = len(plan.seeds) * sum(plan.seconds(study, variant) for variant in study.variants)
    count = len(plan.seeds) * len(study.variants)
    return [*lines, f"{count} runs: about {duration(total)}, on this machine as busy as it is now"]


def configured(
    base: TrainConfig, study: Study, variant: Variant, steps: int, seed: int
) -> TrainConfig:
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
    quarter = _interval(steps, QUARTERS)
    loop = replace(
        base.loop,
        steps=steps_of(variant, steps),
        seed=seed,
        warmup_steps=min(base.loop.warmup_steps, stage // 4),
        decay_steps=0,
        # an average longer than a stage would hide the stages
        ema=min(base.loop.ema, 1 - 10 / max(stage, 11)),
        evaluate_every=_interval(steps, study.points),
        checkpoint_every=quarter,
        log_every=max(1, quarter // 4),
    )
    return replace(base, algorithm=algorithm, loop=loop, save_pipeline=True)


def steps_of(variant: Variant, steps: int) -> int:
    """How many of a study's ``steps`` a variant trains."""
    return max(1, round(variant.share * steps))


def whole_steps(steps: int) -> int:
    """Rounded down, so that all stages are equally long and measured at their ends."""
    unit = STAGES * QUARTERS if steps >= STAGES * QUARTERS else STAGES
    return max(unit, steps // unit * unit)


def run_seconds(study: Study, variant: Variant, steps: int, pace: Pace) -> float:
    """How long a run takes: its steps, the measurements along the way and those at its end."""
    trained = steps_of(variant, steps)
    along = math.ceil(trained / _interval(steps, study.points))
    measurements = along + max(1, len(study.windows))
    return trained * pace.step + measurements * pace.measurement


def duration(seconds: float) -> str:
    """``9 h 20 min``, ``12 min`` or ``40 s``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _interval(steps: int, points: int) -> int:
    """Steps from one measurement to the next, with ``points`` per stage."""
    return max(1, steps // STAGES // points)


def _budgeted(study: Study, pace: Mapping[str, Pace], budget: float, seeds: int) -> int:
    """Steps per run, so that ``seeds`` runs of every variant fit into ``budget`` minutes.

    Raises :class:`OptionError` where the shortest runs do not.
    """
    steps = _fitting(study, pace, 60 * MARGIN * budget / seeds)
    if steps is None:
        least = seeds * _seconds_of_each(study, pace, STAGES) / (60 * MARGIN)
        raise OptionError(
            f"{{option}} is {{value}}, and {seeds} runs of each variant take more with as few as "
            f"{STAGES} steps",
            remedy="give {least} or more, or fewer {seeds}",
            option=Setting("budget"),
            value=budget,
            least=Setting("budget", math.ceil(least)),
            seeds=Setting("seeds"),
        )
    return steps


def _fitting(study: Study, pace: Mapping[str, Pace], seconds: float) -> int | None:
    """The most steps with which one run of every variant fits into ``seconds``, whole as
    :func:`whole_steps` makes them; None where not even the fewest do."""
    unit = STAGES * QUARTERS
    # From a whole unit on, the number of measurements does not depend on the steps.
    first, second = (_seconds_of_each(study, pace, count) for count in (unit, 2 * unit))
    if first <= seconds:
        return unit * (1 + int((seconds - first) / (second - first)))
    fits = [n for n in range(STAGES, unit, STAGES) if _seconds_of_each(study, pace, n) <= seconds]
    return max(fits, default=None)


def _seconds_of_each(study: Study, pace: Mapping[str, Pace], steps: int) -> float:
    """How long one run of every variant takes."""
    return sum(run_seconds(study, one, steps, pace[one.name]) for one in study.variants)


def _timed_config(study: Study, variant: Variant, config: TrainConfig) -> TrainConfig:
    """A few steps of a variant. Nothing is written between them: a real run writes so seldom that
    the cost would be counted many times over."""
    config = replace(configured(config, study, variant, TIMED_STEPS, 0), save_pipeline=False)
    return replace(
        config,
        # one step per stage; a single-stage variant is timed for as long
        algorithm=replace(
            config.algorithm,
            schedule=replace(config.algorithm.schedule, consistency_steps=1, enhancement_steps=1),
        ),
        loop=replace(
            config.loop,
            steps=TIMED_STEPS,
            evaluate_every=TIMED_STEPS,
            checkpoint_every=TIMED_STEPS,
            log_every=TIMED_STEPS,
        ),
    )


def _pace(study: Study, variant: Variant, config: TrainConfig, held_out: HeldOutClips) -> Pace:
    times: list[float] = []
    spent: list[float] = []

    def measured(pipe: DLoRALPipeline) -> dict[str, float]:
        started = time.perf_counter()
        held_out.measured(pipe, variant.scales, most=1)
        pipe.unet.unmerge()
        spent.append((time.perf_counter() - started) * held_out.count)
        return {}

    with tempfile.TemporaryDirectory() as folder:
        run_training(
            _timed_config(study, variant, config),
            Path(folder) / "run",
            measure=measured,
            on_step=lambda _step, _losses: times.append(time.perf_counter()),
        )
    later = times[TIMED_STEPS // 2 - 1 :]
    return Pace((later[-1] - later[0]) / (len(later) - 1), max(spent))


def _settings(study: Study, options: StudyOptions, held_out: HeldOutClips) -> dict[str, str]:
    """What must not change between calls of a study, as text by name."""
    # settings_of leaves the loop to each run's own checkpoints, which other runs do not see
    loop = {
        name: value
        for name, value in flat(options.config.loop, "loop.").items()
        if name.removeprefix("loop.") not in SET_BY_STUDY
    }
    settings = settings_of(options.config) | loop
    return {name: repr(value) for name, value in settings.items()} | {
        "study": study.name,
        "held_out": f"{held_out.name} ({held_out.digest[:12]})",
        "metrics": " ".join(held_out.metrics),
    }


def _check(out: Path, kept: Plan, settings: Mapping[str, str], steps: int | None) -> None:
    if steps not in (None, kept.steps):
        raise OptionError(
            "{path} holds a study of {value} steps a run",
            remedy="give {option}, or a new folder",
            path=out,
            value=kept.steps,
            option=Setting("steps", kept.steps),
        )
    for name in sorted(settings.keys() | kept.settings.keys()):
        was, now = (known.get(name, "not given") for known in (kept.settings, settings))
        if was != now:
            raise OptionError(
                "{path} holds a study whose {name} was {was}, and now it is {now}",
                remedy="give a new folder",
                path=out,
                name=name,
                was=was,
                now=now,
            )


def opened_clips(options: StudyOptions, face: Face = PYTHON) -> HeldOutClips:
    """The held-out pack, with the available measures."""
    return HeldOutClips(options.held_out, options.metrics, face)
