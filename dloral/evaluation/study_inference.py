"""Tables A1 and A3 on an already trained model: LoRA scales and windows at inference.

The paper trains each row separately; its released checkpoint holds one set of weights, so here the
rows are that model's own switches. The low-quality clips are enlarged four times and restored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dloral.errors import PYTHON, DLoRALError, Face, InputError, OptionError, Setting
from dloral.evaluation.catalogue import MetricSuite, Settings, chosen_metrics
from dloral.evaluation.datasets import DataClip, FileFrames, opened, packs_in
from dloral.evaluation.measures import Measured
from dloral.evaluation.pairs import find_pairs
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
    clips: Sequence[DataClip],
    metrics: tuple[str, ...],
    out: Path,
    tell: Callable[[str], None],
    most_frames: int | None = None,
    face: Face = PYTHON,
) -> dict[str, Any]:
    """Run every variant on every clip, restored from its ``lq``; returns the content of
    ``OUT/study.json``."""
    if study.name not in SWITCHED:
        raise OptionError(
            "study {value} compares trainings, not switches of a trained model",
            remedy=f"train it, or choose from {', '.join(SWITCHED)}",
            value=study.name,
        )
    has_truth = any(clip.hq for clip in clips)
    ready = MetricSuite(Settings(metrics=chosen_metrics(metrics, has_truth)), face)
    for name, why in ready.unavailable.items():
        tell(f"NOT AVAILABLE {name}: {why}")
    out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, dict[str, Measured]] = {variant.name: {} for variant in study.variants}
    failed: dict[str, str] = {}
    for variant in study.variants:
        for clip in clips:
            if clip.name in failed:
                continue
            tell(f"{study.name}: {variant.title}, {clip.name}")
            try:
                found, last = _measured(pipe, clip, variant, ready, most_frames)
            except DLoRALError as error:
                failed[clip.name] = error.render(face)
                continue
            measured[variant.name][clip.name] = found
            if clip is clips[0]:
                Image.fromarray(last).save(out / f"shown-{variant.name}.png")
    if len(failed) == len(clips):
        raise InputError(
            "no clip could be measured: {first}",
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
        "num_clips": len(clips) - len(failed),
        "sources": {clip.name: clip.source for clip in clips},
        "runs": runs,
    }


def clips_to_restore(data: Path, reference: Path | None) -> list[DataClip]:
    """The clips of a folder, with those of ``reference`` of the same name; or of packs, which have
    their truth and say what each clip was cut from."""
    packs = packs_in(data) if reference is None else None
    if packs is not None:
        return list(packs.clips)
    return [
        DataClip(
            pair.name,
            pair.name,
            FileFrames(pair.reference) if pair.reference else None,
            FileFrames(pair.restored),  # the low-quality clip takes its place
            pair.missing,
        )
        for pair in find_pairs(data, reference)
    ]


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
    pipe: FrameGenerator, clip: DataClip, variant: Variant, ready: MetricSuite, most: int | None
) -> tuple[Measured, np.ndarray]:
    """(figures, the middle of the last frame: input and restored side by side)."""
    if clip.problem or clip.lq is None:
        raise InputError(clip.problem or "there are no frames of low quality")
    height, width, _ = clip.lq.about()
    size = (SCALE * height, SCALE * width)
    with opened(clip.lq, most) as small_frames, opened(clip.hq, most) as hq_frames:
        restorer = model_restorer(pipe, variant.scales)
        found = restore_and_measure(restorer, small_frames or (), size, ready, hq_frames)
    side = min(SHEET_SIDE, *size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    assert found.last.lq is not None
    parts = [
        f[:, top : top + side, left : left + side] for f in (found.last.lq, found.last.restored)
    ]
    return found.measured, as_bytes(torch.cat(parts, dim=2))
