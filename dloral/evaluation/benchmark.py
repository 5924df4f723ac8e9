"""``dloral benchmark``: a data set restored by models and baselines, measured clip by clip.

Where a data set has only ground truth, its clips are degraded first, with a fixed seed, and the
low-quality frames are kept. Each method and clip has its own result file, so the same command
resumes a run that was stopped, and methods can be added later::

    OUT/protocol.json                what every figure depends on
    OUT/lq/CLIP/00000000.png         low-quality frames, where they were generated
    OUT/clips/CLIP/METHOD.json       figures, with a crop (.jpg) and a row over time (.png)
    OUT/benchmark.json, README.md, index.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from dloral.errors import PYTHON, DLoRALError, Face, InputError, OptionError, OutputError, Setting
from dloral.evaluation.benchmark_clips import DEGRADATIONS, ReadyClip, ready_clip
from dloral.evaluation.benchmark_looks import Look
from dloral.evaluation.benchmark_methods import Method, find_methods
from dloral.evaluation.catalogue import (
    GROUPS,
    METRIC_SPECS,
    ON_FILES,
    PROTOCOLS,
    MetricSuite,
    Settings,
    chosen_metrics,
)
from dloral.evaluation.datasets import DataSet, find_dataset
from dloral.evaluation.fidelity import LUMA_TEXT
from dloral.evaluation.measures import FrameSet
from dloral.evaluation.restore import Restorer, Scales, restore_and_measure
from dloral.evaluation.statistics import LEVEL
from dloral.files import write_json
from dloral.video.media import reason

FORMAT = 1
PROTOCOL_FILE = "protocol.json"


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is compared and how; validated on construction.

    ``models``: names, folders or Hub ids, each run with every one of ``scales``. ``networks``:
    baseline name -> file, of SRVGGNetCompact. ``protocol``: "dloral" or "dove", whose ``metrics``,
    ``flow`` and ``motion`` apply where None is given. ``frames``: how many of each clip to use.
    ``kind``, ``only``, ``sources``: see :func:`find_dataset`. Raises :class:`OptionError`.
    """

    models: tuple[str, ...] = ("compact",)
    scales: tuple[Scales, ...] = (Scales(),)
    baselines: tuple[str, ...] = ()
    networks: dict[str, Path] = field(default_factory=dict)
    protocol: str = "dloral"
    metrics: tuple[str, ...] | None = None
    flow: str | None = None
    flow_weights: str | None = None
    motion: str | None = None
    every: int = 10
    crop: int = 0
    frames: int | None = None
    kind: str = "auto"
    only: tuple[str, ...] = ()
    sources: str | None = None
    degradation: str = "realesrgan"
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for name, choices in (("protocol", PROTOCOLS), ("degradation", DEGRADATIONS)):
            if getattr(self, name) not in choices:
                raise OptionError(
                    "{option} is {value!r}",
                    remedy=f"choose from {', '.join(choices)}",
                    option=Setting(name),
                    value=getattr(self, name),
                )
        for name, least in (("frames", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(
                    "{option} is {value}",
                    remedy=f"give {least} or more",
                    option=Setting(name),
                    value=value,
                )
        labels = [scales.label for scales in self.scales]
        for name, given in (("models", self.models), ("settings", labels)):
            doubled = next((one for one in given if list(given).count(one) > 1), None)
            if doubled is not None:
                raise OptionError(
                    "{option} has {value!r} twice",
                    remedy="give each once",
                    option=Setting(name),
                    value=doubled,
                )

    def measuring(self, has_truth: bool) -> Settings:
        """How clips are measured: as the protocol says, unless overridden."""
        protocol = PROTOCOLS[self.protocol]
        asked = self.metrics is not None
        names = self.metrics or tuple(
            name for name in protocol.metrics if has_truth or _needs_no_truth(name)
        )
        chosen = chosen_metrics(names, has_truth)
        return Settings(
            tuple(n for n in chosen if asked or n not in ON_FILES),
            self.every,
            self.crop,
            self.flow or protocol.flow,
            self.flow_weights,
            self.motion or protocol.motion,
            self.device,
        )


@dataclass(frozen=True)
class Step:
    """A benchmark's progress: ``frame`` of ``num_frames`` of a clip, by a method."""

    method: str
    clip: str
    frame: int
    num_frames: int | None


@dataclass
class Benchmark:
    """Everything that was measured, and everything that could not be.

    ``figures``: method -> clip -> as ``OUT/clips/CLIP/METHOD.json`` has it. ``failed``: clip, or
    clip and method -> why. ``unavailable``: measure -> why.
    """

    dataset: DataSet
    protocol: dict[str, Any]
    metrics: tuple[str, ...]
    methods: list[str] = field(default_factory=list)
    figures: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    face: Face = PYTHON

    @property
    def complete(self) -> bool:
        return not self.failed and not self.unavailable


def run_benchmark(
    folder: Path,
    out: Path,
    options: BenchmarkOptions,
    on_step: Callable[[Step], None] | None = None,
    face: Face = PYTHON,
) -> Benchmark:
    """Measure a data set; results already in ``out`` are kept. ``face`` words what went wrong.

    Raises :class:`OptionError` for a wrong call, or an ``out`` measured differently,
    :class:`InputError` where no clip can be measured, :class:`WeightsError` for unavailable
    models and baselines; a single clip's failure is recorded in the result.
    """
    dataset = find_dataset(folder, options.kind, options.only, options.sources)
    settings = options.measuring(dataset.has_truth)
    methods = list(
        find_methods(
            options.models,
            options.scales,
            options.baselines,
            options.networks,
            options.device,
            options.dtype,
        )
    )
    suite = MetricSuite(settings, face)
    protocol = protocol_of(dataset, options, settings)
    _open_output(folder, out, protocol)
    done = Benchmark(
        dataset, protocol, tuple(s.name for s in suite.specs if s.name not in ON_FILES)
    )
    done.unavailable, done.face = dict(suite.unavailable), face
    for name in ON_FILES:
        if name in settings.metrics:
            done.unavailable[name] = "measured on files; write the result and use dloral evaluate"
    ready = list(_ready_clips(dataset, out, options, done, on_step))
    if not ready:
        problem = next(iter(done.failed.values()))
        raise InputError("no clip of {path} can be measured: {first}", path=folder, first=problem)
    for method in methods:
        done.methods.append(method.name)
        done.figures[method.name] = {}
        _run_method(method, ready, out, suite, done, on_step)
    return done


def protocol_of(dataset: DataSet, options: BenchmarkOptions, settings: Settings) -> dict[str, Any]:
    """Everything a figure depends on besides the method: name -> words or numbers."""
    return {
        "format": FORMAT,
        "protocol": f"{options.protocol}: {PROTOCOLS[options.protocol].about}",
        "data set": f"{dataset.name} ({dataset.layout})",
        "degradation": "as the data set has it"
        if all(clip.lq or clip.problem for clip in dataset.clips)
        else f"{DEGRADATIONS[options.degradation]}; seed {options.seed} with the clip's name",
        "frames": "all" if options.frames is None else f"the first {options.frames} of each clip",
        "size": "the ground truth's, cut to multiples of 4 where it is degraded here; four times "
        "the input's without one",
        "enlargement": "bicubic, a = -0.75, no antialiasing: what is compared, and "
        "models' input where their setting does not say pil (a = -0.5)",
        "baselines": "frame by frame, four times larger, reduced by area averages where that is "
        "more than the size",
        "colour": "RGB in [0, 1], floats as restored, not rounded; videos by their own matrix",
        "luma": LUMA_TEXT,
        "crop": f"{settings.crop} pixels of each border, in PSNR and SSIM",
        "slow measures": f"every {settings.every} frames, from the first",
        "flow": f"{settings.flow}, on "
        + ("the result alone" if settings.motion == "restored" else "the truth, else the input"),
        "metrics": ", ".join(settings.metrics),
        "figures": f"mean over frames, then clips of a source, then sources; ± {LEVEL:.0%} "
        "intervals of Student's t over sources",
    }


def _needs_no_truth(name: str) -> bool:
    return name in GROUPS or METRIC_SPECS[name].scope != "reference"


def _open_output(folder: Path, out: Path, protocol: dict[str, Any]) -> None:
    """Make ``out``, or check that it was measured the same way."""
    if out.exists() and folder.exists() and out.samefile(folder):
        raise OptionError(
            "{path} is the data set itself", remedy="write to another folder", path=out
        )
    known = _kept_protocol(out)
    if known is None:
        write_json(out / PROTOCOL_FILE, protocol)
        return
    for name in [*protocol, *known]:
        if known.get(name) != protocol.get(name):
            raise OptionError(
                "{path} was measured with another {name}: {value!r}",
                remedy="give the same settings, or a new folder",
                path=out,
                name=name,
                value=known.get(name),
            )


def _kept_protocol(out: Path) -> dict[str, Any] | None:
    """The protocol of the benchmark in ``out``; None if it is empty, creating it if needed."""
    kept = out / PROTOCOL_FILE
    try:
        if not kept.is_file():
            out.mkdir(parents=True, exist_ok=True)
            if any(not path.name.startswith(".") for path in out.iterdir()):
                raise OutputError(
                    "{path} holds something else", remedy="give a new folder", path=out
                )
            return None
        text = kept.read_text(encoding="utf-8")
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            "{path} cannot be used: {reason}", path=out, reason=reason(error)
        ) from error
    try:
        known = json.loads(text)
        assert isinstance(known, dict)
        return known
    except (ValueError, AssertionError) as error:
        raise OutputError(
            "{path} is not a benchmark's protocol", remedy="give a new folder", path=kept
        ) from error


def _ready_clips(
    dataset: DataSet,
    out: Path,
    options: BenchmarkOptions,
    done: Benchmark,
    on_step: Callable[[Step], None] | None,
) -> Iterator[ReadyClip]:
    """The clips that can be restored, and why the others cannot."""
    for clip in dataset.clips:
        try:
            if clip.problem:
                raise InputError(clip.problem)

            def tell(frame: int, num_frames: int | None, name: str = clip.name) -> None:
                if on_step is not None:
                    on_step(Step("degrading", name, frame, num_frames))

            yield ready_clip(clip, out, options.degradation, options.seed, options.frames, tell)
        except DLoRALError as error:
            done.failed[clip.name] = error.render(done.face)


def _run_method(
    method: Method,
    ready: list[ReadyClip],
    out: Path,
    suite: MetricSuite,
    done: Benchmark,
    on_step: Callable[[Step], None] | None,
) -> None:
    """Measure every clip with a method; results that exist already are read from ``out``."""
    restorer: Restorer | None = None
    for clip in ready:
        place = out / "clips" / clip.file / f"{method.file}.json"
        identity = {**method.identity, "clip": clip.identity}
        figures = _kept_figures(place, identity, {spec.name for spec in suite.specs})
        if figures is None:
            restorer = restorer or method.load()
            try:
                figures = _measure(method, restorer, clip, place, suite, on_step)
            except DLoRALError as error:
                done.failed[f"{clip.name}, {method.name}"] = error.render(done.face)
                continue
            figures = {"identity": identity, **figures}
            write_json(place, figures)
        done.figures[method.name][clip.name] = figures


def _kept_figures(
    place: Path, identity: dict[str, Any], metrics: set[str]
) -> dict[str, Any] | None:
    """What an earlier run wrote, if it was for the same method and clip, and could measure all
    ``metrics``: a package that was missing may have been installed since."""
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or known.get("identity") != identity:
        return None
    return known if metrics <= {*known.get("available", ())} else None


def _measure(
    method: Method,
    restorer: Restorer,
    clip: ReadyClip,
    place: Path,
    suite: MetricSuite,
    on_step: Callable[[Step], None] | None,
) -> dict[str, Any]:
    look = Look()
    count = 0

    def shown(frame_set: FrameSet) -> None:
        nonlocal count
        count += 1
        look.update(frame_set)
        if on_step is not None:
            on_step(Step(method.name, clip.name, count, clip.num_frames))

    with clip.opened() as (small_frames, hq_frames):
        restored = restore_and_measure(restorer, small_frames, clip.size, suite, hq_frames, shown)
    place.parent.mkdir(parents=True, exist_ok=True)
    look.save(place)
    measured = restored.measured
    return {
        "method": method.name,
        "clip": clip.name,
        "source": clip.source,
        "height": clip.size[0],
        "width": clip.size[1],
        "num_frames": measured.num_frames,
        "available": [spec.name for spec in suite.specs],
        "seconds_per_frame": round(restored.seconds, 4),
        "mean": {name: value for name, value in measured.totals.items() if isfinite(value)},
        "frames": {
            name: [v if v is not None and isfinite(v) else None for v in values]
            for name, values in measured.frames.items()
        },
        "conditions": measured.conditions,
    }
