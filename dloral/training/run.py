"""From a configuration to a trained model."""

from collections.abc import Callable, Mapping
from pathlib import Path

from dloral.pipeline import DLoRALPipeline
from dloral.training.config import TrainConfig

Measure = Callable[[DLoRALPipeline], Mapping[str, float]]


def run_training(
    config: TrainConfig,
    run: Path,
    *,
    measure: Measure | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> Path:
    """Train as ``config`` says; returns ``run / "pipeline"``, a folder for ``load_pipeline``.

    A run that was stopped goes on from its checkpoint. ``run`` also gets ``config.py`` (resolved),
    ``log.jsonl`` (losses and held-out figures by step), ``tensorboard/``, ``samples/`` and
    ``trainable.txt``. ``measure``: figures of one's own, asked for with the averaged weights each
    time the run evaluates, and logged with the held-out figures. Raises :class:`DLoRALError`.
    """
    raise NotImplementedError
