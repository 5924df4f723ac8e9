"""What a benchmark compares: bicubic, baselines, and models with settings, loaded when used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dloral.evaluation.baselines import BICUBIC, load_baseline, version_of
from dloral.evaluation.restore import Restorer, Scales, baseline_restorer, bicubic, model_restorer
from dloral.frame_generator import FrameGenerator
from dloral.weights.loading import load_pipeline
from dloral.weights.resolve import find_model, hash_of_model


@dataclass(frozen=True)
class Method:
    """``identity``: what its figures depend on; ``load``: its restorer, ready."""

    name: str
    identity: dict[str, Any]
    load: Callable[[], Restorer]

    @property
    def file(self) -> str:
        return file_name(self.name)


def file_name(method: str) -> str:
    """A method's name as used for files."""
    return re.sub(r"[^\w.=-]+", "_", method)


class _Models:
    """Loads models, keeping only the last while its settings run: two may not fit in memory."""

    def __init__(self, device: str, dtype: str) -> None:
        self.device, self.dtype = device, dtype
        self._kept: tuple[str, FrameGenerator] | None = None

    def get(self, model: str) -> FrameGenerator:
        if self._kept is None or self._kept[0] != model:
            self._kept = None
            self._kept = (model, load_pipeline(model, self.device, self.dtype))
        return self._kept[1]


def find_methods(
    models: Sequence[str],
    scales: Sequence[Scales],
    baselines: Sequence[str],
    networks: Mapping[str, Path],
    device: str,
    dtype: str,
) -> Iterator[Method]:
    """Bicubic, the baselines, and each model with each setting.

    Raises :class:`OptionError` or :class:`WeightsError` for anything unknown or unavailable,
    before anything is measured.
    """
    yield Method(BICUBIC, {"method": BICUBIC}, lambda: bicubic)
    for name in dict.fromkeys([*baselines, *networks]):
        if name != BICUBIC:
            restorer = baseline_restorer(load_baseline(name, networks, device=device))
            identity = {"method": name, "version": version_of(name, networks)}
            yield Method(name, identity, _always(restorer))
    kept = _Models(device, dtype)
    names = _names(models)
    for model in models:
        weights = hash_of_model(find_model(model))
        for one in scales:
            identity = {"model": weights, "scales": one.label, "dtype": dtype}
            yield Method(f"{names[model]} {one.label}", identity, _model(kept, model, one))


def _always(restorer: Restorer) -> Callable[[], Restorer]:
    return lambda: restorer


def _model(kept: _Models, model: str, scales: Scales) -> Callable[[], Restorer]:
    return lambda: model_restorer(kept.get(model), scales)


def _names(models: Sequence[str]) -> dict[str, str]:
    """A model's name, or its folder's; the whole path where two folders share one."""
    short = {model: Path(model).name or model for model in models}
    shared = {name for name in short.values() if [*short.values()].count(name) > 1}
    return {model: model if name in shared else name for model, name in short.items()}
