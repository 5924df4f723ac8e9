"""The settings and data of a training run through all phases."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from dloral.data.manifest import HeldOut
from dloral.data.pool import PoolConfig
from dloral.data.sources import Sources, find_sources, pack_of, sha256
from dloral.data.spec import ClipSpec, one_of
from dloral.errors import OptionError, Setting
from dloral.training.checkpoints import CheckpointError
from dloral.training.config import flat
from dloral.training.fresh import KEPT, CompactSizes, is_phase_file, phase_file
from dloral.training.loop import FREE_SETTINGS, LoopConfig
from dloral.training.phases.algorithm1 import Algorithm1Config
from dloral.training.phases.base import BaseConfig
from dloral.training.phases.decoder import DecoderConfig
from dloral.training.phases.detail import DetailConfig
from dloral.training.phases.drawing import DrawingConfig
from dloral.training.phases.flow import FlowConfig
from dloral.weights.resolve import find_model
from dloral.weights.srvgg import teacher_file

PHASES = ("flow", "blocks", "drawing", "cleaning", "base", "decoder", "algorithm1", "detail")
DRAWING = ("blocks", "drawing")
OPTIONAL = (*DRAWING, "cleaning", "detail")
PLAN = "plan.json"

FREE = (
    *("workers", "teacher", "detail_teacher", "start", "held_out_clips", "shares"),
    *(f"{phase}_loop.{name}" for phase in PHASES for name in FREE_SETTINGS if name != "steps"),
)
"""Settings that may change when a run is resumed. Teachers and ``start`` are paths to files, which
are identified by their contents; ``shares`` are in the plan as steps."""


@dataclass(frozen=True)
class ChainConfig:
    """What each phase does and for how long: ``PHASE_loop.steps``, or its share of a time budget.

    ``pool``: clips are made on the device and kept there; without one, ``workers`` processes make
    each clip when it is needed. ``film_shots``: the most shots of film in a pool.
    ``rank``: of C-LoRA and D-LoRA. ``teacher``: the path to realesr-general-x4v3 for ``blocks`` and
    ``drawing`` (which are skipped if None) and the losses against a teacher in ``base`` and
    ``algorithm1``; ``detail_teacher``: another for ``algorithm1`` and ``detail`` (default: the
    same). ``start``: a model's name or folder, or a phase's file from an earlier run; its flow net
    and all other base weights of matching shape are copied, and the flow phase is skipped.
    ``keep_loras``: what ``algorithm1`` continues from the start: ``all`` LoRAs and retrieval, or
    only the LoRAs in the ``decoder``; sizes must match.
    ``cleaning``: the UNet's phase before the base, with losses on small pictures (``picture_*``).
    """

    sizes: CompactSizes = field(default_factory=CompactSizes)
    rank: int = 8
    flow: FlowConfig = field(default_factory=FlowConfig)
    flow_loop: LoopConfig = field(default_factory=LoopConfig)
    blocks: DrawingConfig | None = None
    blocks_loop: LoopConfig = field(default_factory=LoopConfig)
    drawing: DrawingConfig | None = None
    drawing_loop: LoopConfig = field(default_factory=LoopConfig)
    cleaning: BaseConfig | None = None
    cleaning_loop: LoopConfig = field(default_factory=LoopConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    base_loop: LoopConfig = field(default_factory=LoopConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    decoder_loop: LoopConfig = field(default_factory=LoopConfig)
    algorithm1: Algorithm1Config = field(default_factory=Algorithm1Config)
    algorithm1_loop: LoopConfig = field(default_factory=LoopConfig)
    detail: DetailConfig | None = None
    detail_loop: LoopConfig = field(default_factory=LoopConfig)
    shares: tuple[float, ...] = (0.06, 0.12, 0.2, 0.1, 0.1, 0.05, 0.17, 0.2)
    clips: ClipSpec = field(default_factory=ClipSpec)
    pool: PoolConfig | None = None
    film_shots: int = 1600
    workers: int = 1
    held_out_clips: int = 4
    teacher: str = ""
    detail_teacher: str = ""
    start: str = ""
    keep_loras: str = ""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.workers < 0 or self.held_out_clips < 0 or self.film_shots < 1:
            raise OptionError(
                "rank and film_shots must be 1 or more, workers and held_out_clips 0 or more"
            )
        if self.pool is not None and self.clips.photo_reductions != ClipSpec().photo_reductions:
            raise OptionError(
                "photo_reductions only apply without a pool, which has its own",
                remedy="leave them unset, or set pool=None",
            )
        if self.pool is None and self.detail is not None:
            raise OptionError(
                "the phase detail draws its clips from a pool", remedy="set pool, or detail=None"
            )
        if self.keep_loras not in ("", *KEPT):
            raise OptionError(
                f"keep_loras is {self.keep_loras!r}", remedy=f"{one_of(KEPT)}, or leave it unset"
            )
        if self.keep_loras and not self.start:
            raise OptionError(
                "{option} needs a model to take LoRAs from",
                remedy="set {start} too, or leave it unset",
                option=Setting("keep_loras", self.keep_loras),
                start=Setting("start"),
            )
        if len(self.shares) != len(PHASES) or min(self.shares) < 0 or sum(self.shares) <= 0:
            raise OptionError(
                f"shares is {self.shares}; give 0 or more for each of the {len(PHASES)} phases, "
                "not all 0"
            )
        if self.cleaning and not self.cleaning.of_pictures:
            raise OptionError(
                "the cleaning phase decodes no frames", remedy="use only picture_* losses there"
            )

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases that are trained; with a ``start``, the flow net comes from there."""
        idle = {"flow"} if self.start else set()
        idle |= {name for name in OPTIONAL if getattr(self, name) is None}
        return tuple(name for name in PHASES if name not in idle)

    @property
    def largest_crop(self) -> int:
        """Side in pixels of the largest crop of any phase but the flow net's."""
        phases = (getattr(self, name) for name in PHASES if name != "flow")
        return max(phase.crop for phase in phases if phase is not None)

    @property
    def most_frames(self) -> int:
        """The longest clip of any phase, in frames."""
        seen = [config.seen for config in (self.base, self.cleaning) if config is not None]
        return max(self.flow.frames, *seen, self.algorithm1.frames)

    def loop(self, phase: str) -> LoopConfig:
        """The loop of a phase, by its name."""
        loop: LoopConfig = getattr(self, f"{phase}_loop")
        return loop

    def with_steps(self, steps: dict[str, int]) -> "ChainConfig":
        """A copy with these step counts, by phase, for the phases that are trained. If a count
        differs from the configuration's own, warm-up and decay keep their share of the steps."""
        loops = {}
        for name in self.phases:
            count = steps[name]
            loop = self.loop(name)
            factor = count / loop.steps
            loops[f"{name}_loop"] = replace(
                loop,
                steps=count,
                warmup_steps=min(loop.warmup_steps, round(loop.warmup_steps * max(factor, 0.02))),
                decay_steps=round(loop.decay_steps * factor),
            )
        return replace(self, **loops)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Material:
    """The training data, the held-out data of the same places, and the device used."""

    sources: Sources
    held_out: Sources
    state: PartialState

    def digest(self) -> list[str]:
        """SHA-256 of every source, sorted: the same on every machine."""
        return sorted(sha256(path) for path in self.sources.files())


def find_material(config: ChainConfig, manifest: Path | None, state: PartialState) -> Material:
    """The sources without held-out files; raises :class:`InputError` if nothing is left."""
    if pack_of(config.clips.places):
        raise OptionError(
            "a pack of clips cannot train every phase", remedy="give photos: and videos: places"
        )
    held_out, frames = HeldOut.load(manifest), config.most_frames
    size = max(config.flow.crop, config.largest_crop)
    found = find_sources(config.clips.for_training(frames, size, config.base_loop.seed))
    sources = held_out.exclude(found, frames).checked(config.clips)
    held_out.refuse(sources, frames)
    return Material(sources, held_out.only(found, frames), state)


def check_same(run: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise :class:`CheckpointError`, in one line, if settings or data are not the run's.

    A setting that did not exist when the run was started counts as left at its default."""
    defaults = json.loads(json.dumps(settings_of(ChainConfig())))
    before, now = defaults | stored["settings"], wanted["settings"]
    for name in sorted((stored["settings"].keys() | now.keys()) - {*FREE}):
        was, given = before.get(name, "not a setting"), now.get(name, "not a setting")
        if was != given:
            raise CheckpointError(
                "{path} was started with {name}={was}, but it is now {given}",
                remedy="use the same settings, or another run folder",
                path=run,
                name=name,
                was=repr(was),
                given=repr(given),
            )
    had, has = set(stored["sources"]), set(wanted["sources"])
    if had != has:
        raise CheckpointError(
            "{path} was started on different data: {gone} of its {count} sources are gone and "
            "{new} are new",
            remedy="use the same data, or another run folder",
            path=run,
            gone=len(had - has),
            count=len(had),
            new=len(has - had),
        )


def settings_of(config: ChainConfig) -> dict[str, Any]:
    """The settings that affect the weights, by dotted name; files are identified by contents."""
    teachers = {
        f"{name}_sha256": sha256(teacher_file(path)) if path else ""
        for name, path in (("teacher", config.teacher), ("detail_teacher", config.detail_teacher))
    }
    settings, left_out = flat(config, mappings=True), (*FREE, "clips.places")
    kept = {name: value for name, value in settings.items() if name not in left_out}
    started = start_digest(config.start) if config.start else ""
    return kept | teachers | {"start_sha256": started}


def start_digest(model: str) -> str:
    """SHA-256 over the weights of a model, given its name, its folder or a phase's file."""
    if is_phase_file(model):
        return sha256(phase_file(model))
    digest, folder = hashlib.sha256(), find_model(model)
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


def check_budget(text: str) -> float:
    """``9h``, ``25m``, ``90s`` or a plain number in seconds; raises :class:`OptionError`."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise OptionError(
            "{option} is {value!r}", remedy="give a time such as 9h, 25m or 600s",
            option="budget", value=text,
        )  # fmt: skip
    return seconds
