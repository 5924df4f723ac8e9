"""Tables A1 and A3 on an already trained model: LoRA scales and windows at inference.

The paper trains each row separately; its released checkpoint holds one set of weights, so here the
rows are that model's own switches. The low-quality clips are enlarged four times and restored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dloral.errors import PYTHON, DLoRALError, Face, InputError, OptionError, Setting
from dloral.evaluation.catalogue import MetricSuite, Settings, chosen_metrics
from dloral.evaluation.datasets import FileFrames, opened
from dloral.evaluation.measures import Measured
from dloral.evaluation.pairs import Pair, find_pairs
from dloral.evaluation.restore import model_restorer, restore_and_measure
from dloral.evaluation.studies import Study, Variant
from dloral.evaluation.study_measuring import means
from dloral.frame_generator import FrameGenerator
from dloral.frames.clips import as_bytes
from dloral.weights.convert import convert
from dloral.weights.loading import load_pipeline

SWITCHED = ("branches", "windows")
SCALE = 4
SHEET_SIDE = 256


@contextmanager
def opened_model(
    model: str, base: Path | None, device: str, dtype: str
) -> Iterator[FrameGenerator]:
    """A model by name, or straight from the released ``model.pkl`` with its SD 2.1 ``base``."""
    if not model.endswith(".pkl"):
        yield load_pipeline(model, device, dtype)
        return
    if base is None:
        raise OptionError(
            "{path} needs its Stable Diffusion 2.1-base folder",
            remedy="give {option}",
            path=Path(model),
            option=Setting("base"),
        )
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "model"
        convert(Path(model), base, converted)
        yield load_pipeline(str(converted), device, dtype)


def measure_study(
    study: Study,
    pipe: FrameGenerator,
    data: Path,
    reference: Path | None,
    metrics: tuple[str, ...],
    out: Path,
    tell: Callable[[str], None],
    most_frames: int | None = None,
    face: Face = PYTHON,
) -> dict[str, Any]:
    """Run every variant on every clip of a folder; returns the content of ``OUT/study.json``."""
    if study.name not in SWITCHED:
        raise OptionError(
            "study {value} compares trainings, which no switch of a trained model tells apart",
            remedy=f"train it, or choose from {', '.join(SWITCHED)}",
            value=study.name,
        )
    ready = MetricSuite(Settings(metrics=chosen_metrics(metrics, reference is not None)), face)
    for name, why in ready.unavailable.items():
        tell(f"NOT AVAILABLE {name}: {why}")
    pairs = find_pairs(data, reference)
    out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, dict[str, Measured]] = {variant.name: {} for variant in study.variants}
    failed: dict[str, str] = {}
    for variant in study.variants:
        for pair in pairs:
            if pair.name in failed:
                continue
            tell(f"{study.name}: {variant.title}, {pair.name}")
            try:
                found, last = _measured(pipe, pair, variant, ready, most_frames)
            except DLoRALError as error:
                failed[pair.name] = error.render(face)
                continue
            measured[variant.name][pair.name] = found
            if pair is pairs[0]:
                Image.fromarray(last).save(out / f"shown-{variant.name}.png")
    if len(failed) == len(pairs):
        raise InputError(
            "no clip of {path} could be measured: {first}",
            path=data,
            first=next(iter(failed.values())),
        )
    runs, conditions = _means(measured, failed)
    return {
        "study": study.name,
        "kind": "inference",
        "metrics": [spec.name for spec in ready.specs],
        "unavailable": ready.unavailable,
        "failed": failed,
        "conditions": conditions,
        "num_clips": len(pairs) - len(failed),
        "sources": {pair.name: pair.name for pair in pairs},
        "runs": runs,
    }


def _means(
    measured: Mapping[str, Mapping[str, Measured]], failed: Mapping[str, str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """(a run per variant, with means over clips as its final figures; what they depend on)."""
    runs: list[dict[str, Any]] = []
    conditions: dict[str, str] = {}
    for name, by_pair in measured.items():
        # A clip that failed with one variant is left out for all of them.
        kept = {pair: found for pair, found in by_pair.items() if pair not in failed}
        clips = {pair: found.totals for pair, found in kept.items()}
        final = means(clips)
        runs.append({"variant": name, "seed": 0, "points": [], "final": final, "clips": clips})
        for found in kept.values():
            conditions |= found.conditions
    return runs, conditions


def _measured(
    pipe: FrameGenerator, pair: Pair, variant: Variant, ready: MetricSuite, most_frames: int | None
) -> tuple[Measured, np.ndarray]:
    """(figures, the middle of the last frame: input and restored side by side)."""
    if pair.missing:
        raise InputError(pair.missing)
    # The low-quality clip takes the place of evaluate's restored one.
    lq = FileFrames(pair.restored)
    hq = FileFrames(pair.reference) if pair.reference else None
    height, width, _ = lq.about()
    size = (SCALE * height, SCALE * width)
    with opened(lq, most_frames) as small_frames, opened(hq, most_frames) as hq_frames:
        restorer = model_restorer(pipe, variant.scales)
        found = restore_and_measure(restorer, small_frames or (), size, ready, hq_frames)
    side = min(SHEET_SIDE, *size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    assert found.last.lq is not None
    parts = [
        f[:, top : top + side, left : left + side] for f in (found.last.lq, found.last.restored)
    ]
    return found.measured, as_bytes(torch.cat(parts, dim=2))
