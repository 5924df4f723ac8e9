"""From a configuration to a trained model."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from dloral.data.clips import ClipSource
from dloral.data.manifest import HeldOut
from dloral.data.packs import Pack, PackClips
from dloral.data.sources import Sources, find_sources, pack_of, sha256
from dloral.data.spec import ClipSpec
from dloral.data.streams import StreamClips, draw_clips, enlarged
from dloral.errors import OptionError, OutputError
from dloral.files import write_text, write_whole
from dloral.models.adapters import CONSISTENCY, DETAIL
from dloral.pipeline import DLoRALPipeline
from dloral.training.config import DataConfig, TrainConfig, flat, save_config
from dloral.training.loop import own_micro_batches, process_state, resolve_precision
from dloral.training.monitor import check_run_folder, make_run_folder
from dloral.training.perceptual import load_perceptual
from dloral.training.phases.algorithm1 import Algorithm1Task, algorithm_1
from dloral.training.preview import Preview
from dloral.training.schedule import Stage
from dloral.training.start import Prompts, build_start
from dloral.training.trainer import Trainer
from dloral.weights.checkpoint_io import BROKEN, first_line
from dloral.weights.srvgg import load_srvgg, teacher_file

Measure = Callable[[DLoRALPipeline], Mapping[str, float]]

HELD_OUT_SEED = 1_000_003  # held-out clips are drawn from a different seed than training's
DISTANCES = ("perceptual", "lpips", "feature")
FREE_SETTINGS = ("data.workers", "data.held_out", "save_pipeline", "model.gradient_checkpointing")
"""Settings that may change when a run is resumed, besides the loop's own."""


def run_training(
    config: TrainConfig,
    run: Path,
    *,
    measure: Measure | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> Path:
    """Train ``config``; returns ``run / "pipeline"``, a folder for ``load_pipeline``.

    A stopped run resumes from its checkpoint. ``run`` also gets ``config.py`` (resolved),
    ``log.jsonl`` (losses and held-out figures by step), ``tensorboard/``, ``samples/`` and
    ``trainable.txt``. ``measure``: custom figures, computed with the averaged weights at each
    evaluation and logged with the held-out figures. Raises :class:`DLoRALError`.
    """
    check_run_folder(run)
    state = process_state()
    teacher = teacher_file(config.model.teacher) if config.model.teacher else None
    pipe = build_start(config.model, state.device, config.loop.seed)
    config, distance = _with_distance(config, state.device)
    precision = resolve_precision(config.loop.mixed_precision, state.device)
    config = replace(config, loop=replace(config.loop, mixed_precision=precision))
    task = Algorithm1Task(
        pipe,
        _sources(config, state),
        config.algorithm,
        distance,
        Prompts(pipe, config.model),
        config.model.gradient_checkpointing,
        load_srvgg(teacher).to(state.device) if teacher else None,
    )
    held_out = _held_out(task, config, state.device)

    def evaluate() -> dict[str, float]:
        figures = held_out.figures() if held_out is not None else {}
        return figures | (dict(measure(pipe)) if measure is not None else {})

    trainer = Trainer(
        task.trainable(),
        config.loop,
        run,
        buffers=task.buffers(),
        settings=settings_of(config),
        evaluate=evaluate,
        picture=held_out.picture if held_out is not None else None,
        on_step=on_step,
    )
    if state.is_main_process:
        make_run_folder(run)
        _announce(task, trainer, config, state)
    trainer.check()
    if state.is_main_process:
        save_config(config, run / "config.py")
    algorithm_1(task, trainer)
    if state.is_main_process and config.save_pipeline:
        save_pipeline(pipe, run / "pipeline")
    state.wait_for_everyone()
    return run / "pipeline"


def _announce(
    task: Algorithm1Task, trainer: Trainer, config: TrainConfig, state: PartialState
) -> None:
    """Report what learns, and on what, to ``trainable.txt`` and stderr."""
    report, own = trainable_report(task), len(trainer.own_micro_batches)
    write_text(trainer.run / "trainable.txt", report + "\n" + _trainable_tensors(task))
    print(
        f"{report}\ntraining on {state.num_processes} x {state.device.type}, mixed precision "
        f"{config.loop.mixed_precision!r}: {own} micro-batches of {config.algorithm.clips} clips "
        "per step and process",
        file=sys.stderr,
    )


def save_pipeline(pipe: DLoRALPipeline, target: Path) -> None:
    """Write the model folder atomically, replacing an earlier one of the same run."""

    def write(part: Path) -> None:
        pipe.save_pretrained(part)
        if target.exists():
            target.rename(part.with_name("before"))

    try:
        write_whole(target, write)
    except BROKEN as error:
        free = shutil.disk_usage(target.parent).free
        raise OutputError(
            f"{target} could not be written ({free / 1e9:.1f} GB free): {first_line(error)}; the "
            "training is saved: free up space and run the same command again"
        ) from error


def trainable_report(task: Algorithm1Task) -> str:
    """Parameter counts of the trainable parts, one by one, and of the frozen ones."""
    parts = {
        "C-LoRA (theta_1)": [p for n, p in task.trainable().items() if f".{CONSISTENCY}." in n],
        "D-LoRA (theta_2)": [p for n, p in task.trainable().items() if f".{DETAIL}." in n],
        "CFR (mu)": [p for n, p in task.trainable().items() if n.startswith("retrieval.")],
        "discriminator": [p for n, p in task.trainable().items() if n.startswith("discriminator.")],
    }
    lines = ["trainable parameters"]
    for name, parameters in parts.items():
        if parameters:
            count = sum(p.numel() for p in parameters)
            rank = f", rank {parameters[0].shape[0]}" if "LoRA" in name else ""
            lines.append(f"  {name:17}{count:>12,} in {len(parameters)} tensors{rank}")
    total = sum(p.numel() for p in task.trainable().values())
    lines.append(f"  {'total':17}{total:>12,}")
    learning = {id(p) for p in task.trainable().values()}
    modules = [m for m in task.pipe.components.values() if isinstance(m, nn.Module)]
    frozen = sum(p.numel() for m in modules for p in m.parameters() if id(p) not in learning)
    lines.append(f"  {'frozen':17}{frozen:>12,}")
    return "\n".join(lines)


def _trainable_tensors(task: Algorithm1Task) -> str:
    """Every tensor that learns: its name, shape and count."""
    return "".join(
        f"{name}  {'x'.join(map(str, p.shape))}  {p.numel()}\n"
        for name, p in task.trainable().items()
    )


def list_data(config: TrainConfig) -> Mapping[str, Sources | Pack]:
    """The data in each stage's places, by the stage's name; a pack if one is used. Raises
    :class:`DLoRALError` if there is nothing to train on."""
    algorithm, data = config.algorithm, config.data
    wanted = {"both stages": data.consistency}
    if data.enhancement is not None:
        wanted = {"consistency": data.consistency, "enhancement": data.enhancement}
    found = {name: _trained_on(_spec(spec, config), config) for name, spec in wanted.items()}
    if data.held_out is not None:
        folder = pack_of(data.held_out.places)
        pack = Pack(folder).check(algorithm.frames) if folder else None  # clips are seen whole
        found["held out"] = pack or find_sources(_spec(data.held_out, config))
    return found


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Every setting but the loop's, by dotted name: those that a checkpoint is tied to."""
    settings = {
        name: value
        for name, value in flat(config).items()
        if not name.startswith(("loop.", "model.teacher", *FREE_SETTINGS))
    }
    if config.model.teacher:  # identified by its contents, wherever it is
        settings["model.teacher"] = sha256(teacher_file(config.model.teacher))
    return settings


def _with_distance(
    config: TrainConfig, device: torch.device
) -> tuple[TrainConfig, nn.Module | None]:
    """The perceptual loss's network, and the configuration with that loss named after it."""
    schedule = config.algorithm.schedule
    named = [name for name in DISTANCES if name in config.algorithm.plan().loss_names()]
    if not named:
        return config, None
    if len(named) > 1:
        raise OptionError(
            f"the losses {' and '.join(named)} are mutually exclusive; use only one of them"
        )
    found, network = load_perceptual(named[0])

    def renamed(weights: Mapping[str, float] | None) -> dict[str, float] | None:
        if weights is None:
            return None
        return {found if name == named[0] else name: w for name, w in weights.items()}

    schedule = replace(
        schedule,
        consistency_weights=renamed(schedule.consistency_weights) or {},
        enhancement_weights=renamed(schedule.enhancement_weights) or {},
        first_weights=renamed(schedule.first_weights),
    )
    return replace(config, algorithm=replace(config.algorithm, schedule=schedule)), network.to(
        device
    )


def _sources(config: TrainConfig, state: PartialState) -> Mapping[Stage, ClipSource]:
    """For every stage of the schedule, where its clips come from."""
    algorithm, loop, data = config.algorithm, config.loop, config.data
    schedule = algorithm.plan()
    own = own_micro_batches(loop.micro_batches, state.num_processes, state.process_index)

    def source(stage: Stage) -> ClipSource:
        spec = _spec(_stage_spec(data, stage), config)
        found = _trained_on(spec, config)
        if isinstance(found, Pack):
            return PackClips(found, algorithm.clips, algorithm.crop, state.device)
        return StreamClips(
            found,
            spec,
            algorithm.clips,
            [step for step in range(loop.steps) if schedule.stage_at(step + 1) == stage],
            loop.micro_batches,
            own,
            data.workers,
            state.device,
        )

    return {stage: source(stage) for stage in schedule.stages}


def _stage_spec(data: DataConfig, stage: Stage) -> ClipSpec:
    """A joint stage has one sample for all losses: S_cons, whose clips really move."""
    if stage == "enhancement" and data.enhancement is not None:
        return data.enhancement
    return data.consistency


def _trained_on(spec: ClipSpec, config: TrainConfig) -> Sources | Pack:
    """Where a stage's clips come from: places less what is held out; never a pack holding any."""
    algorithm, held_out = config.algorithm, HeldOut.load()
    if folder := pack_of(spec.places):
        pack = Pack(folder).check(algorithm.frames, algorithm.crop)
        held_out.refuse_pack(pack)
        return pack
    return held_out.exclude(find_sources(spec), algorithm.frames).checked(spec)


def _held_out(task: Algorithm1Task, config: TrainConfig, device: torch.device) -> Preview | None:
    spec, count = config.data.held_out, config.data.held_out_clips
    if spec is None:
        return None
    if folder := pack_of(spec.places):
        pack = Pack(folder).check(config.algorithm.frames)
        return Preview(task, pack.clips(slice(count)).to(device))
    spec = _spec(spec, config, HELD_OUT_SEED)
    return Preview(task, enlarged(draw_clips(find_sources(spec), spec, range(count)), device))


def _spec(spec: ClipSpec, config: TrainConfig, seed: int = 0) -> ClipSpec:
    algorithm = config.algorithm
    return spec.for_training(algorithm.frames, algorithm.crop, config.loop.seed + seed)
