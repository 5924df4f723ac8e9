"""Tables A1 and A3 on a model that is trained already: LoRA scales and windows at inference.

The paper trains each row anew; its released checkpoint holds the weights of one, so here the rows
are that model's own switches. The low-quality clips are enlarged four times and restored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dloral.errors import DLoRALError, InputError, OptionError
from dloral.evaluation.catalogue import MetricSuite, Settings, chosen_metrics
from dloral.evaluation.measures import FrameSet, Measured, measure_steps
from dloral.evaluation.pairs import Pair, find_pairs
from dloral.evaluation.studies import Study, Variant
from dloral.frame_generator import FrameGenerator
from dloral.frames.resize import resize_bicubic
from dloral.options import AUTO_TILE
from dloral.video.probe import probe
from dloral.video.reader import read_frames
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
        raise OptionError(f"{model} needs its Stable Diffusion 2.1-base folder; give --base DIR")
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
) -> dict[str, Any]:
    """Every variant on every clip of a folder; what was found, as ``OUT/study.json`` has it."""
    if study.name not in SWITCHED:
        raise OptionError(
            f"study {study.name} compares trainings, which no switch of a trained model tells "
            f"apart; train it with --model compact, or choose from {', '.join(SWITCHED)}"
        )
    ready = MetricSuite(Settings(metrics=chosen_metrics(metrics, reference is not None)))
    for name, why in ready.unavailable.items():
        tell(f"NOT AVAILABLE {name}: {why}")
    pairs = find_pairs(data, reference)
    out.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    conditions: dict[str, str] = {}
    for variant in study.variants:
        totals = []
        for pair in pairs:
            if pair.name in failed:
                continue
            tell(f"{study.name}: {variant.title}, {pair.name}")
            try:
                measured, last = _measured(pipe, pair, variant, ready, most_frames)
            except DLoRALError as error:
                failed[pair.name] = str(error)
                continue
            totals.append(measured.totals)
            conditions |= measured.conditions
            if len(totals) == 1:
                Image.fromarray(last).save(out / f"shown-{variant.name}.png")
        if not totals:
            raise InputError(f"no clip of {data} could be measured: {next(iter(failed.values()))}")
        final = {
            name: float(np.mean([one[name] for one in totals if name in one])) for name in totals[0]
        }
        runs.append({"variant": variant.name, "seed": 0, "points": [], "final": final})
    return {
        "study": study.name,
        "kind": "inference",
        "metrics": [spec.name for spec in ready.specs],
        "unavailable": ready.unavailable,
        "failed": failed,
        "conditions": conditions,
        "num_clips": len(pairs) - len(failed),
        "runs": runs,
    }


def _measured(
    pipe: FrameGenerator, pair: Pair, variant: Variant, ready: MetricSuite, most_frames: int | None
) -> tuple[Measured, np.ndarray]:
    """(figures, the middle of the last frame: input and restored side by side)."""
    if pair.missing:
        raise InputError(pair.missing)
    clip = probe(pair.restored)  # the low-quality clip stands where evaluate has the restored one
    height, width = SCALE * clip.height, SCALE * clip.width
    measured, last = Measured(), None
    with read_frames(clip) as frames, _references(pair) as references:
        kept = []

        def enlarged() -> Iterator[Any]:
            for frame in frames:
                if most_frames is not None and frame.index >= most_frames:
                    return
                kept.append(resize_bicubic(frame.pixels[None], height, width)[0])
                yield kept[-1]

        restored = pipe.stream(
            enlarged(),
            consistency=variant.consistency,
            detail=variant.detail,
            window=variant.window,
            tile=AUTO_TILE,
        )

        def moments() -> Iterator[FrameSet]:
            nonlocal last
            for frame in restored:
                last = (kept.pop(0), frame)
                reference = next(references).pixels if references is not None else None
                yield FrameSet(frame, reference, last[0])

        for measured in measure_steps(moments(), ready.measures()):  # noqa: B007
            pass
    if last is None:
        raise InputError(f"{pair.restored} has no frame; give a clip with one or more")
    side = min(SHEET_SIDE, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    parts = [f[:, top : top + side, left : left + side].permute(1, 2, 0).numpy() for f in last]
    return measured, (255 * np.concatenate(parts, axis=1).clip(0, 1)).round().astype(np.uint8)


@contextmanager
def _references(pair: Pair) -> Iterator[Any]:
    if pair.reference is None:
        yield None
        return
    with read_frames(pair.reference) as frames:
        yield frames
