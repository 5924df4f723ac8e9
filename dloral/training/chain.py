"""Training the compact model: all phases in turn, from photographs to a model folder.

``RUN/plan.json`` is written once, before the first step: every setting, the steps of each phase,
and the SHA-256 of the training data. ``RUN/PHASE/`` is a phase's own run (its log and checkpoint),
``RUN/PHASE.safetensors`` the model after a finished phase, ``RUN/pipeline`` the result.
A run stores no paths outside itself, so it can be resumed on any machine with the same data.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dloral.data.clips import Clips, ClipSource
from dloral.data.pictures import Pictures, film_clips
from dloral.data.pool import PoolClips, PoolConfig
from dloral.data.streams import StreamClips, draw_clips, enlarged
from dloral.errors import OptionError
from dloral.files import write_json, write_whole
from dloral.models.adapters import add_adapters
from dloral.models.srvgg import SRVGG
from dloral.pipeline import DLoRALPipeline
from dloral.training.checkpoints import BEFORE, CHECKPOINT, CheckpointError
from dloral.training.fresh import build_pipeline, take_over, take_over_loras
from dloral.training.loop import LoopConfig, own_micro_batches, process_state
from dloral.training.monitor import check_run_folder, make_run_folder
from dloral.training.objective import ASKING, FEATURES
from dloral.training.perceptual import load_perceptual
from dloral.training.phases.algorithm1 import Algorithm1Task, algorithm_1
from dloral.training.phases.base import BaseConfig, BasePhase
from dloral.training.phases.decoder import DecoderPhase
from dloral.training.phases.detail import DetailPhase
from dloral.training.phases.drawing import DrawingConfig, DrawingPhase
from dloral.training.phases.flow import FlowPhase
from dloral.training.phases.phase import Phase, train
from dloral.training.plan import (
    DRAWING,
    PHASES,
    PLAN,
    ChainConfig,
    Material,
    check_same,
    find_material,
    settings_of,
)
from dloral.training.preview import Preview
from dloral.training.run import HELD_OUT_SEED, save_pipeline
from dloral.training.schedule import Stage
from dloral.training.trainer import Trainer
from dloral.weights.srvgg import load_srvgg, teacher_file

TRIAL_STEPS = 8
"""Steps of each phase that are timed, then discarded, to divide a time budget."""

OnStep = Callable[[str, int, dict[str, float]], None]


def run_chain(
    config: ChainConfig,
    run: Path,
    *,
    budget: float | None = None,
    steps: int | None = None,
    manifest: Path | None = None,
    on_step: OnStep | None = None,
) -> Path:
    """Train every phase; returns ``run / "pipeline"``.

    ``budget`` (seconds) or ``steps`` (in total) is divided among the phases by ``shares``; without
    either, each phase uses its own step count. Only a new run uses them. ``manifest``: the held-out
    files (None: the project's own list). A stopped run is resumed. Raises :class:`DLoRALError`.
    """
    check_run_folder(run)
    state = process_state()
    material = find_material(config, manifest, state)
    make_run_folder(run)
    config = _planned(config, run, material, budget, steps)
    chain = Chain(config, material)
    for name in PHASES:
        learned = run / f"{name}.safetensors"
        chain.prepare(name)
        if not learned.is_file():
            if name in config.phases:
                chain.train(name, run / name, on_step)
            if state.is_main_process:
                write_whole(learned, lambda part: save_file(chain.weights(), part))
        state.wait_for_everyone()
        chain.load(learned)
        if state.is_main_process:
            for checkpoint in (CHECKPOINT, BEFORE):
                (run / name / checkpoint).unlink(missing_ok=True)
    if state.is_main_process:
        save_pipeline(chain.pipe, run / "pipeline")
    state.wait_for_everyone()
    return run / "pipeline"


def _planned(
    config: ChainConfig, run: Path, material: Material, budget: float | None, steps: int | None
) -> ChainConfig:
    """The configuration with the steps from ``plan.json``, which is written once."""
    path, state = run / PLAN, material.state
    wanted = {"settings": settings_of(config), "sources": material.digest()}
    new = not path.is_file()
    state.wait_for_everyone()  # before one of them writes it
    if new:
        counts, timed = _step_counts(config, run, material, budget, steps)
        if state.is_main_process:
            write_json(path, {**wanted, "steps": counts, "budget": budget, "seconds": timed})
        state.wait_for_everyone()
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        stored = {name: plan[name] for name in wanted}
        planned = config.with_steps({name: int(plan["steps"][name]) for name in config.phases})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "{path} is damaged", remedy="use another run folder", path=path
        ) from error
    check_same(run, stored, json.loads(json.dumps(wanted)))
    return planned


def _step_counts(
    config: ChainConfig, run: Path, material: Material, budget: float | None, steps: int | None
) -> tuple[dict[str, int], dict[str, float]]:
    """(steps of each phase, seconds per step where timed)."""
    shares = {n: s for n, s in zip(PHASES, config.shares, strict=True) if n in config.phases}
    shares = {name: share / sum(shares.values()) for name, share in shares.items()}
    if steps is not None:
        return {name: max(1, round(share * steps)) for name, share in shares.items()}, {}
    if budget is None:
        return {name: config.loop(name).steps for name in shares}, {}
    begun = time.monotonic()
    timed = {name: _seconds_a_step(config, run, material, name) for name in shares}
    left = budget - (time.monotonic() - begun)
    if left <= 0:
        raise OptionError(
            "{option} is {value:g} seconds, all spent on timing the phases",
            remedy="give a longer one",
            option="budget",
            value=budget,
        )
    slowest = torch.tensor([timed[name] for name in shares], dtype=torch.float64)
    return {
        name: max(1, int(shares[name] * left / seconds))
        for name, seconds in zip(shares, slowest.tolist(), strict=True)
    }, timed


def _seconds_a_step(config: ChainConfig, run: Path, material: Material, name: str) -> float:
    """Timed on a phase with fresh weights, in a temporary folder."""
    chain, times = Chain(config.with_steps(dict.fromkeys(PHASES, TRIAL_STEPS)), material), []
    for earlier in PHASES[: PHASES.index(name) + 1]:
        chain.prepare(earlier)
    with tempfile.TemporaryDirectory(dir=run, prefix=".trial-") as folder:
        chain.train(name, Path(folder), lambda *step: times.append(time.monotonic()), figures=False)
    later = times[TRIAL_STEPS // 2 :]
    return max(1e-4, (later[-1] - later[0]) / (len(later) - 1))


def _asking(names: set[str]) -> bool:
    """Whether one of these losses needs a teacher."""
    return any(name.startswith(ASKING) for name in names)


class Chain:
    """One pipeline on its way through the phases."""

    def __init__(self, config: ChainConfig, material: Material) -> None:
        self.config, self.material = config, material
        self.device = material.state.device
        self.pipe: DLoRALPipeline = build_pipeline(config.sizes, config.base_loop.seed)
        self._pictures: Pictures | None = None
        base, algorithm1 = config.base.loss_names(), config.algorithm1.plan().loss_names()
        names = base | algorithm1
        self.teacher = self._load_teacher(config.teacher)
        self.detail_teacher = self._load_teacher(config.detail_teacher) or self.teacher
        self.features = None
        asked = {*DRAWING} & {*config.phases} or _asking(base)
        detailed = "detail" in config.phases or _asking(algorithm1)
        if (asked and not self.teacher) or (detailed and not self.detail_teacher):
            raise OptionError(
                "{option} is required by blocks, drawing, detail and the losses against a teacher",
                remedy="set it to the path of realesr-general-x4v3",
                option="teacher",
            )
        if config.start:
            take_over(self.pipe, config.start)
        self.pipe = self.pipe.to(self.device).channels_last()
        plain = {name.removeprefix(asked) for name in names for asked in ASKING}
        plain |= {"feature"} if config.detail and config.detail.feature else set()
        featured = sorted(plain & set(FEATURES))
        if featured:
            self.features = load_perceptual(featured[0])[1].to(self.device)

    def _load_teacher(self, path: str) -> SRVGG | None:
        return load_srvgg(teacher_file(path)).to(self.device) if path else None

    def prepare(self, name: str) -> None:
        """Add what a phase needs to the pipeline, before loading or training weights."""
        if name == "algorithm1":
            torch.manual_seed(self.config.base_loop.seed)
            add_adapters(self.pipe.unet, self.config.rank)
            sizes = self.config.sizes
            if sizes.head_rank or sizes.block_rank:
                self.pipe.vae.add_adapters(sizes.head_rank, sizes.block_rank)
            kept = self.config.keep_loras
            if kept:
                take_over_loras(self.pipe, self.config.start, kept)
            if kept != "all":  # retrieval starts as no change, like the LoRAs
                for parameter in self.pipe.retrieval.proj.parameters():
                    nn.init.zeros_(parameter)
            self.pipe = self.pipe.to(self.device).channels_last()

    def train(
        self, name: str, run: Path, on_step: OnStep | None = None, figures: bool = True
    ) -> None:
        """Train one phase; ``figures``: evaluate on held-out clips along the way."""
        loop = self.config.loop(name)
        if self.material.state.is_main_process and figures:
            print(f"{name}: {loop.steps} steps", file=sys.stderr)

        def step(number: int, losses: dict[str, float]) -> None:
            if on_step is not None:
                on_step(name, number, losses)

        held_out = self._held_out(name) if figures else None
        if name == "algorithm1":
            self._algorithm1(loop, run, held_out, step)
        else:
            train(self._phase(name, held_out), loop, run, {"phase": name}, step)

    def weights(self) -> dict[str, Tensor]:
        """Every tensor of the pipeline by its dotted name, on the CPU."""
        parts = {n: p for n, p in self.pipe.components.items() if isinstance(p, nn.Module)}
        return {
            f"{part}.{name}": tensor.detach().cpu().contiguous().clone()
            for part, module in parts.items()
            for name, tensor in module.state_dict().items()
        }

    def load(self, path: Path) -> None:
        """Load what :meth:`weights` returned; :class:`CheckpointError` for a damaged file."""
        try:
            stored = load_file(path)
            for name, module in self.pipe.components.items():
                if isinstance(module, nn.Module):
                    start = f"{name}."
                    module.load_state_dict(
                        {n[len(start) :]: t for n, t in stored.items() if n.startswith(start)}
                    )
        except Exception as error:  # damaged bytes can make the reader raise anything
            raise CheckpointError(
                "{path} is damaged",
                remedy="remove it to train that phase again",
                path=path,
            ) from error

    def _phase(self, name: str, held_out: Clips | None) -> Phase:
        config, loop = self.config, self.config.loop(name)
        if name == "flow":
            flow = config.flow
            source = self._source(flow.frames, flow.clips, flow.crop, loop)
            return FlowPhase(self.pipe, source, flow, loop.steps, held_out)
        if name in DRAWING:
            drawing: DrawingConfig = getattr(config, name)
            pool = config.pool
            if pool and drawing.apart:  # the teacher's layers exist at its own scale only
                pool = replace(pool, smaller_share=0.0)
            source = self._source(1, drawing.clips, drawing.crop, loop, pool)
            return DrawingPhase(self.pipe, source, drawing, loop.steps, self.teacher, held_out)
        if name == "decoder":
            decoder = config.decoder
            source = self._source(1, decoder.clips, decoder.crop, loop)
            return DecoderPhase(self.pipe, source, decoder, held_out)
        if name == "detail":
            assert config.detail is not None
            algorithm1 = config.detail.algorithm1(config.algorithm1)
            source = self._source(algorithm1.frames, algorithm1.clips, algorithm1.crop, loop)
            return DetailPhase(
                self.pipe,
                source,
                config.detail,
                config.algorithm1,
                loop.seed,
                self.detail_teacher,
                held_out,
                self.features,
            )
        base: BaseConfig = getattr(config, name)
        source = self._source(base.seen, base.drawn, base.crop, loop)
        return BasePhase(
            self.pipe,
            source,
            base,
            loop.steps,
            held_out=held_out,
            feature_distance=self.features,
            teacher=self.teacher,
        )

    def _algorithm1(
        self,
        loop: LoopConfig,
        run: Path,
        held_out: Clips | None,
        on_step: Callable[[int, dict[str, float]], None],
    ) -> None:
        config = self.config.algorithm1
        source = self._source(config.frames, config.clips, config.crop, loop)
        sources: dict[Stage, ClipSource] = dict.fromkeys(config.plan().stages, source)
        task = Algorithm1Task(
            self.pipe, sources, config, self.features, teacher=self.detail_teacher
        )
        shown = Preview(task, held_out) if held_out is not None else None
        trainer = Trainer(
            task.trainable(),
            loop,
            run,
            buffers=task.buffers(),
            settings={"phase": "algorithm1"},
            evaluate=shown.figures if shown is not None else None,
            picture=shown.picture if shown is not None else None,
            on_step=on_step,
        )
        algorithm_1(task, trainer)

    def _source(
        self, frames: int, clips: int, crop: int, loop: LoopConfig, pool: PoolConfig | None = None
    ) -> ClipSource:
        """``pool``: overrides the configuration's own."""
        config, state = self.config, self.material.state
        if pool := pool or config.pool:
            return PoolClips(self._all_pictures(), frames, clips, crop, loop.seed, pool)
        return StreamClips(
            self.material.sources,
            config.clips.for_training(frames, crop, loop.seed),
            clips,
            range(loop.steps),
            loop.micro_batches,
            own_micro_batches(loop.micro_batches, state.num_processes, state.process_index),
            config.workers,
            self.device,
        )

    def _all_pictures(self) -> Pictures:
        if self._pictures is None:
            config, sources = self.config, self.material.sources
            frames = config.most_frames
            film = None
            if sources.windows:
                reduction, most = config.clips.video_reduction, config.film_shots
                film = film_clips(sources.windows, frames, reduction, most)
            size = max(config.base.crop, config.algorithm1.crop)
            size = config.pool.size(size) if config.pool else size
            size = max(size, config.largest_crop)
            size = max(size, config.flow.crop) if "flow" in config.phases else size
            share = config.clips.video_share
            self._pictures = Pictures(
                sources.photos, film, size, self.device, *(() if share is None else (share,))
            )
        return self._pictures

    def _held_out(self, name: str) -> Clips | None:
        """Held-out clips found in the training's places, if any."""
        config, sources = self.config, self.material.held_out
        if not (sources.photos or sources.windows) or not config.held_out_clips:
            return None
        if not self.material.state.is_main_process:
            return None
        frames = {"flow": config.flow.frames}
        frames |= {"base": config.base.seen}
        frames |= {"cleaning": config.cleaning.seen} if config.cleaning else {}
        frames |= dict.fromkeys((*DRAWING, "decoder"), 1)
        spec = config.clips.for_training(
            frames.get(name, config.algorithm1.frames),
            config.algorithm1.crop,
            HELD_OUT_SEED,
        )
        clips = enlarged(draw_clips(sources, spec, range(config.held_out_clips)), self.device)
        return None if name == "flow" and clips.flow is None else clips
