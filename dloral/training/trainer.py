"""The loop that all training shares: micro-batches, optimizer, EMA, checkpoints, processes.

A :class:`Trainer` counts iterations and updates weights; the caller that iterates decides what is
trained, and on what (:func:`dloral.training.phases.algorithm1.algorithm_1`, or
:func:`dloral.training.phases.phase.train` for a phase). Everything random in micro-batch ``m`` of
step ``i`` is drawn from ``(seed, i, m)`` alone, so a run that was killed and resumed, or spread
over several processes, sees exactly the batches of one that was not.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from dloral.data.clips import Draw
from dloral.errors import CancelledError, DLoRALError, OptionError, OutputError
from dloral.training.checkpoints import (
    check_settings,
    check_tensors,
    load_checkpoint,
    save_checkpoint,
)
from dloral.training.loop import (
    FREE_SETTINGS,
    LoopConfig,
    own_micro_batches,
    resolve_precision,
)
from dloral.training.monitor import Monitor, make_run_folder
from dloral.training.soap import SOAP

MOST_SKIPPED = 20
"""Consecutive steps that fp16's loss scaling may skip while it searches for its scale."""


class NotFiniteError(DLoRALError):
    """The loss is no longer finite; the checkpoints are still valid."""


class Update:
    """One step in progress: iterate over its micro-batches and pass back the losses of each."""

    def __init__(self, trainer: "Trainer", step: int) -> None:
        self._trainer, self._step = trainer, step
        self.losses: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[Draw]:
        trainer = self._trainer
        for micro in trainer.own_micro_batches:
            words = (trainer.config.seed, self._step, micro)
            rng = np.random.default_rng(words)
            # For libraries that draw from torch's own generator.
            torch.manual_seed(int(np.random.default_rng((*words, 1)).integers(2**62)))
            yield Draw(self._step, micro, rng)

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Add a micro-batch's gradient of the sum of its ``losses``."""
        self._trainer.accelerator.backward(torch.stack(list(losses.values())).sum())
        for name, loss in losses.items():
            share = loss.detach() / len(self._trainer.own_micro_batches)
            self.losses[name] = self.losses.get(name, torch.zeros_like(share)) + share


class Trainer:
    """Runs the loop's optimizer on ``parameters`` (by stable names), over all processes.

    ``buffers``: other state that changes in training. ``settings``: what else must match to resume
    from a checkpoint. ``evaluate`` returns held-out figures and ``picture`` a sample grid (3,H,W);
    both see the averaged weights. ``on_step`` is called after every step.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        config: LoopConfig,
        run: Path,
        *,
        buffers: Mapping[str, Tensor] | None = None,
        settings: Mapping[str, Any] | None = None,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        picture: Callable[[], Tensor | None] | None = None,
        on_step: Callable[[int, dict[str, float]], None] | None = None,
    ) -> None:
        self.parameters, self.config, self.run = parameters, config, run
        self.buffers = dict(buffers or {})
        self.evaluate, self.picture, self.on_step = evaluate, picture, on_step
        loop = {f"loop.{k}": v for k, v in asdict(config).items() if k not in FREE_SETTINGS}
        self.settings = _plain(loop | dict(settings or {}))
        self.accelerator = _accelerator(config, next(iter(parameters.values())).device)
        self.own_micro_batches = own_micro_batches(
            config.micro_batches,
            self.accelerator.num_processes,
            self.accelerator.process_index,
        )
        self.accelerator.gradient_accumulation_steps = len(self.own_micro_batches)
        self.groups = self._groups()
        optimizer = {"adamw": torch.optim.AdamW, "soap": SOAP}[config.optimizer](
            [{"params": [parameters[n] for n in names]} for names in self.groups.values()],
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.average = {name: p.detach().clone() for name, p in parameters.items()}
        self.step = 0
        self.stage = ""
        self._skipped = 0
        self._last_losses: dict[str, float] = {}
        self._asked_to_stop = False  # by a signal to this process
        self._stopping = False  # agreed on by all processes

    # For the caller that iterates ------------------------------------------------------------

    def iterations(self) -> Iterator[int]:
        """1, 2, ... ``config.steps``, from where the run left off; :meth:`update` once in each.

        Between them the run is logged, saved and evaluated. A first Ctrl-C (or SIGTERM) finishes
        the step, saves, and raises :class:`CancelledError`; a second one stops at once.
        """
        make_run_folder(self.run)
        self._resume()
        main = self.accelerator.is_main_process
        with (
            Monitor(self.run, self.config.steps, self.step, self.config.log_every, main) as monitor,
            self._polite_stop(),
        ):
            self._catch_up(monitor)
            while self.step < self.config.steps:
                before = self.step
                yield self.step + 1
                assert self.step == before + 1, "an iteration updates exactly once"
                self._between(monitor)
        self._fill(self.average)

    @contextmanager
    def update(self, active: set[str]) -> Iterator[Update]:
        """One step on the parameters named ``active``; all others stay bit-identical."""
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(name in active)
        for group, factor in zip(self.optimizer.param_groups, self.groups, strict=True):
            group["lr"] = factor * self.config.learning_rate_at(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        update = Update(self, self.step)
        yield update
        self._share_gradients(active)
        losses = self._shared_losses(update.losses)
        self._clip_and_check(losses, active)
        self.optimizer.step()
        with torch.no_grad():
            # A short average at first, so that the random start does not linger in it.
            ema = self.config.ema
            factor = min(ema, (1 + self.step) / (10 + self.step)) if ema else 0.0
            for name in active:
                self.average[name].lerp_(self.parameters[name], 1 - factor)
        self.step += 1
        self._last_losses = losses

    @torch.no_grad()
    def restart_averages(self, names: set[str]) -> None:
        """Reset the averages of these parameters to their current values."""
        for name in names:
            self.average[name].copy_(self.parameters[name])

    def check(self) -> dict[str, Any] | None:
        """The run's last checkpoint, if any; raises :class:`CheckpointError` if it is from another
        configuration."""
        state = load_checkpoint(self.run)
        if state is not None:
            check_tensors(self.run, state["parameters"], self.parameters)
            check_settings(self.run, state.get("settings", {}), self.settings)
        return state

    def autocast(self) -> AbstractContextManager[None]:
        """The forward pass's precision."""
        return self.accelerator.autocast()

    # Inside ----------------------------------------------------------------------------------

    def _groups(self) -> dict[float, list[str]]:
        """Names of parameters by the factor of their learning rate."""
        groups: dict[float, list[str]] = {}
        for name in self.parameters:
            factors = [f for start, f in self.config.rate_factors.items() if name.startswith(start)]
            groups.setdefault(factors[0] if factors else 1.0, []).append(name)
        return groups

    def _share_gradients(self, active: set[str]) -> None:
        """Average over processes. By hand, since what learns is small and changes from stage to
        stage: DistributedDataParallel wants the same parameters in every step."""
        if self.accelerator.num_processes == 1:
            return
        shared = [self.parameters[name] for name in sorted(active)]
        for parameter in shared:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.flatten() for p in shared if p.grad is not None])
        parts = self.accelerator.reduce(flat, "mean").split([p.numel() for p in shared])
        for parameter, part in zip(shared, parts, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(part.view_as(parameter))

    def _shared_losses(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Mean losses over all processes; also shares whether any was asked to stop."""
        values = torch.stack(list(losses.values())).float()
        stop = values.new_tensor([float(self._asked_to_stop)])
        together = self.accelerator.reduce(torch.cat([values, stop]), "mean").tolist()
        self._stopping = together.pop() > 0
        return dict(zip(losses, together, strict=True))

    def _clip_and_check(self, losses: Mapping[str, float], active: set[str]) -> None:
        """Clip each group's gradient; raise :class:`NotFiniteError` before anything is changed."""
        self.accelerator.unscale_gradients()
        norms = [
            nn.utils.clip_grad_norm_(
                [self.parameters[n] for n in names if n in active], self.config.gradient_clip
            )
            for names in self.groups.values()
        ]
        norm = float(np.max([float(norm) for norm in norms]))  # NaN if any is: max() may skip it
        total = sum(losses.values())
        finite = np.isfinite(total) and np.isfinite(norm)
        self._skipped = 0 if finite else self._skipped + 1
        scaled = self.accelerator.scaler is not None and np.isfinite(total)
        if finite or (scaled and self._skipped <= MOST_SKIPPED):
            return
        self._keep()
        self.accelerator.wait_for_everyone()  # one that exits first would end the one that saves
        raise NotFiniteError(
            f"the loss at step {self.step} is {total} with gradient norm {norm}; the weights are "
            f"still good and saved in the checkpoint of step {self.step}; a resumed run meets the "
            "same step: start another, in another folder, with a lower learning rate"
        )

    def _keep(self) -> None:
        """Save if the last checkpoint is older than the weights."""
        if self.accelerator.is_main_process:
            saved = load_checkpoint(self.run)
            if saved is None or saved["step"] != self.step:
                self._write_checkpoint()

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Within, if logs or pictures cannot be written, what was learned is saved first."""
        try:
            yield
        except OutputError as error:
            self._keep()
            raise OutputError(
                f"{error}; the checkpoint of step {self.step} is saved: free up space and run the "
                "same command again"
            ) from error

    def _between(self, monitor: Monitor) -> None:
        step, config = self.step, self.config
        with self._keeping():
            monitor.step(step, self._last_losses, config.learning_rate_at(step - 1), self.stage)
        if self.on_step:
            self.on_step(step, self._last_losses)
        if step % config.checkpoint_every == 0 or step == config.steps or self._stopping:
            self._save()
        if self._stopping:
            raise CancelledError(
                f"stopped after step {step}; its checkpoint is saved: run the same command again "
                "to resume"
            )
        if self._is_measured():
            self._evaluate(monitor)

    def _is_measured(self) -> bool:
        step, config = self.step, self.config
        return step > 0 and (step % config.evaluate_every == 0 or step == config.steps)

    def _catch_up(self, monitor: Monitor) -> None:
        """Evaluate at the step that a run resumes from, if it was stopped right after saving."""
        if self._is_measured():
            if self.accelerator.is_main_process and monitor.has_figures(self.step):
                self.accelerator.wait_for_everyone()
            else:
                self._evaluate(monitor)

    def _evaluate(self, monitor: Monitor) -> None:
        if self.accelerator.is_main_process:
            with self._keeping(), self.averaged(), self.autocast(), torch.no_grad():
                if self.evaluate is not None:
                    monitor.figures(self.step, self.evaluate())
                grid = self.picture() if self.picture is not None else None
                if grid is not None:
                    monitor.picture(self.step, grid)
        self.accelerator.wait_for_everyone()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the parameters' running averages within the context."""
        saved = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._fill(self.average)
        try:
            yield
        finally:
            self._fill(saved)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            self._write_checkpoint()
        self.accelerator.wait_for_everyone()

    def _write_checkpoint(self) -> None:
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "average": self.average,
            "buffers": self.buffers,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "settings": self.settings,
        }
        save_checkpoint(self.run, state)

    def _resume(self) -> None:
        state = self.check()
        if state is None:
            return
        self._fill(state["parameters"])
        for name, average in self.average.items():
            average.copy_(state["average"][name])
        for name, buffer in self.buffers.items():
            buffer.copy_(state["buffers"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    @contextmanager
    def _polite_stop(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return

        def ask(number: int, frame: Any) -> None:
            if self._asked_to_stop:
                raise KeyboardInterrupt
            self._asked_to_stop = True

        before = {kind: signal.signal(kind, ask) for kind in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


def _accelerator(config: LoopConfig, device: torch.device) -> Accelerator:
    # One process may train several times (the studies do), each time in its own precision;
    # otherwise accelerate insists on the first.
    AcceleratorState._reset_state()
    precision = resolve_precision(config.mixed_precision, device)
    try:
        return Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
    except ValueError as error:
        raise OptionError(
            f"mixed_precision {config.mixed_precision!r} is not supported on {device.type}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a checkpoint returns them: as text, which compares by content."""
    return {name: repr(value) for name, value in settings.items()}
