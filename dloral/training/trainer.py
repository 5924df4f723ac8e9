"""The loop every training shares: batches by step number, AdamW, EMA, checkpoints, a log.

A :class:`Task` says what is trained and how its losses are made; the loop knows nothing else.
Whatever is random in step ``i`` is drawn from ``(seed, i)`` alone, so a run that was killed and
resumed sees exactly the batches of one that was not.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dloral.errors import DLoRALError

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class LoopConfig:
    """``steps`` in all; the learning rate rises over ``warmup_steps``, stays, and falls linearly
    to zero over the last ``decay_steps``. ``ema`` is the averaging factor a step (0: none)."""

    steps: int
    learning_rate: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup_steps: int = 100
    decay_steps: int = 0
    gradient_clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    checkpoint_every: int = 200
    evaluate_every: int = 1000

    def learning_rate_at(self, step: int) -> float:
        rising = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        falling = min(1.0, (self.steps - step) / max(self.decay_steps, 1))
        return self.learning_rate * min(rising, falling)


class Task(Protocol):
    """What is trained. ``modules`` are saved whole; only ``trainable(step)`` is updated."""

    modules: Mapping[str, nn.Module]

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every parameter that any step may update, by a stable name."""

    def active(self, step: int) -> set[str]:
        """Names of the parameters that this step updates."""

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """The weighted parts of the loss of one step; their sum is minimised."""

    def evaluate(self) -> dict[str, float]:
        """Figures on held-out data, with the weights as they are now."""


class NotFiniteError(DLoRALError):
    """The loss stopped being finite; the last checkpoint is still good."""


def train(
    task: Task,
    config: LoopConfig,
    run: Path,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Run ``task`` to ``config.steps``, going on from the checkpoint in ``run`` where there is one.

    At the end (and while ``evaluate`` runs) the modules hold the averaged weights.
    """
    run.mkdir(parents=True, exist_ok=True)
    parameters = task.trainable()
    optimizer = torch.optim.AdamW(
        parameters.values(), betas=config.betas, weight_decay=config.weight_decay
    )
    average = {name: p.detach().clone() for name, p in parameters.items()}
    step = _load(run / CHECKPOINT, parameters, average, optimizer)
    (run / "config.json").write_text(json.dumps(asdict(config), indent=1))
    started = time.monotonic()
    with tqdm(total=config.steps, initial=step, unit="step", smoothing=0.05) as bar:
        while step < config.steps:
            losses = _one_step(task, config, step, parameters, average, optimizer)
            step += 1
            bar.update()
            bar.set_postfix({k: f"{v:.4f}" for k, v in losses.items()}, refresh=False)
            if on_step:
                on_step(step, losses)
            if step % 20 == 0:
                seconds = round(time.monotonic() - started, 1)
                _log(run, {"step": step, "seconds": seconds, **losses})
            if step % config.checkpoint_every == 0 or step == config.steps:
                _save(run / CHECKPOINT, step, parameters, average, optimizer)
            if step % config.evaluate_every == 0 or step == config.steps:
                with averaged(parameters, average):
                    _log(run, {"step": step, "held_out": task.evaluate()})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(average[name])


def _one_step(
    task: Task,
    config: LoopConfig,
    step: int,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> dict[str, float]:
    active = task.active(step)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in active)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate_at(step)
    losses = task.losses(step, np.random.default_rng((config.seed, step)))
    total = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    norm = nn.utils.clip_grad_norm_([parameters[name] for name in active], config.gradient_clip)
    if not torch.isfinite(total) or not torch.isfinite(norm):
        raise NotFiniteError(
            f"the loss at step {step} is {total.item()} with gradient norm {norm.item()}; "
            "resume from the last checkpoint with a lower learning rate"
        )
    optimizer.step()
    with torch.no_grad():
        # A short average at first, so that it does not remember the random start.
        factor = min(config.ema, (1 + step) / (10 + step)) if config.ema else 0.0
        for name in active:
            average[name].lerp_(parameters[name], 1 - factor)
    return {name: loss.item() for name, loss in losses.items()}


class averaged:  # noqa: N801 (a context manager, read as a verb)
    """Within ``with averaged(...)``, the parameters hold their running averages."""

    def __init__(self, parameters: dict[str, nn.Parameter], average: dict[str, Tensor]) -> None:
        self.parameters, self.average = parameters, average

    def __enter__(self) -> None:
        self.saved = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._fill(self.average)

    def __exit__(self, *error: object) -> None:
        self._fill(self.saved)

    @torch.no_grad()
    def _fill(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])


def _save(
    path: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Whole or not at all: a full disk or a kill leaves the last good checkpoint."""
    temporary = path.with_suffix(".tmp")
    torch.save(
        {
            "step": step,
            "parameters": {name: p.detach() for name, p in parameters.items()},
            "average": average,
            "optimizer": optimizer.state_dict(),
        },
        temporary,
    )
    temporary.replace(path)


def _load(
    path: Path,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    if misfits := state["parameters"].keys() ^ parameters.keys():
        raise DLoRALError(
            f"{path} is a checkpoint of another configuration (it differs in {min(misfits)} and "
            f"{len(misfits) - 1} more); give another run folder"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state["parameters"][name])
            average[name].copy_(state["average"][name])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def _log(run: Path, entry: dict[str, Any]) -> None:
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")
