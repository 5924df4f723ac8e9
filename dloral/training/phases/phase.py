"""The interface of a training phase, and the loop that trains one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dloral.data.clips import Draw
from dloral.training.loop import LoopConfig
from dloral.training.trainer import Trainer


class Phase(ABC):
    """What :func:`train` trains. A checkpoint holds ``trainable()`` and ``buffers()``; steps count
    from 0."""

    @abstractmethod
    def trainable(self) -> dict[str, nn.Parameter]:
        """Every parameter that any step may update, by a stable name."""

    @abstractmethod
    def losses(self, draw: Draw) -> dict[str, Tensor]:
        """The weighted parts of the loss of one micro-batch; their sum is minimised."""

    def buffers(self) -> dict[str, Tensor]:
        """Other state that changes in training."""
        return {}

    def begin(self, step: int) -> set[str]:
        """Called before each step; returns the names of parameters that it has reset, whose
        averages restart."""
        return set()

    def active(self, step: int) -> set[str]:
        """Names of the parameters that this step updates."""
        return set(self.trainable())

    def finish(self) -> None:  # noqa: B027 - most phases have nothing to do
        """Called once all steps are done, with the averaged weights."""

    def evaluate(self) -> dict[str, float]:
        """Figures on held-out data, with the current weights."""
        return {}


def train(
    phase: Phase,
    config: LoopConfig,
    run: Path,
    settings: Mapping[str, Any] | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Run ``phase`` to ``config.steps``, resuming from the checkpoint in ``run`` if there is one.

    At the end (and while ``evaluate`` runs) the parameters hold their averages.
    """
    trainer = Trainer(
        phase.trainable(),
        config,
        run,
        buffers=phase.buffers(),
        settings=settings,
        evaluate=phase.evaluate,
        on_step=on_step,
    )
    for iteration in trainer.iterations():
        trainer.restart_averages(phase.begin(iteration - 1))
        with trainer.update(phase.active(iteration - 1)) as update:
            for draw in update:
                with trainer.autocast():
                    losses = phase.losses(draw)
                update.backward(losses)
    phase.finish()
