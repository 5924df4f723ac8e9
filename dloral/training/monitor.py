"""A run's output: a progress bar, ``RUN/log.jsonl``, TensorBoard curves, sample grids.

A failed write raises a single :class:`OutputError` and leaves no partial line or image.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dloral.errors import OutputError
from dloral.files import write_whole, writing
from dloral.frames.clips import as_bytes
from dloral.packages import install_command

log = logging.getLogger(__name__)

QUIET_SECONDS = 30
"""Between two lines of the bar where it cannot be redrawn (a file, a cluster's log)."""


class Monitor:
    """Use as a context manager; only that of a run's main process writes (``writes``)."""

    def __init__(
        self, run: Path, steps: int, first_step: int, log_every: int, writes: bool
    ) -> None:
        self.run, self.log_every, self.writes = run, log_every, writes
        seen = sys.stderr.isatty()
        self.bar = tqdm(
            total=steps,
            initial=first_step,
            unit="step",
            smoothing=0.05,
            disable=not writes,
            dynamic_ncols=seen,
            mininterval=0.1 if seen else QUIET_SECONDS,
        )
        self._is_first = True
        self.curves: Any = None
        if writes:
            with writing(run / "tensorboard"):
                self.curves = _curves(run / "tensorboard", first_step)
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        if self.curves is None:
            return
        try:
            with writing(self.run / "tensorboard"):
                self.curves.close()
        except OutputError:
            if error is None:  # otherwise the error that ended the run says more
                raise

    def step(
        self, step: int, losses: Mapping[str, float], learning_rate: float, stage: str
    ) -> None:
        """Log a step: its weighted losses, learning rate and stage."""
        if self._is_first and self.writes:  # it filled pools too: not what a step takes
            self._is_first = False
            self.bar.unpause()
            self.bar.initial += 1
            self.bar.n = self.bar.last_print_n = step
            self.bar.refresh()
        else:
            self.bar.update()
        if stage:
            self.bar.set_description_str(stage, refresh=False)
        self.bar.set_postfix({k: f"{v:.4f}" for k, v in losses.items()}, refresh=False)
        if step % self.log_every or not self.writes:
            return
        seconds = round(time.monotonic() - self.started, 1)
        self._write({"step": step, "seconds": seconds, **losses})
        points = {f"loss/{name}": value for name, value in losses.items()}
        points["learning rate"] = learning_rate
        if stage:
            points["stage/enhancement"] = float(stage != "consistency")
        self._plot(step, points)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Log held-out figures."""
        if not self.writes:
            return
        self._write({"step": step, "held_out": dict(figures)})
        self._plot(step, {f"held out/{name}": value for name, value in figures.items()})

    def has_figures(self, step: int) -> bool:
        """Whether the log has held-out figures of this step."""
        path = self.run / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return any(
            '"held_out"' in line and json.loads(line)["step"] == step for line in reversed(lines)
        )

    def picture(self, step: int, grid: Tensor) -> None:
        """Save a sample grid (3,H,W) in [0, 1]."""
        if not self.writes:
            return
        path = self.run / "samples" / f"step-{step:06}.png"
        pixels = as_bytes(grid)
        write_whole(path, Image.fromarray(pixels).save, parents=True)
        if self.curves is not None:
            with writing(self.run / "tensorboard"):
                self.curves.add_image("samples", pixels, step, dataformats="HWC")

    def _plot(self, step: int, points: Mapping[str, float]) -> None:
        if self.curves is not None:
            with writing(self.run / "tensorboard"):
                for name, value in points.items():
                    self.curves.add_scalar(name, value, step)

    def _write(self, entry: Mapping[str, Any]) -> None:
        path = self.run / "log.jsonl"
        size = path.stat().st_size if path.is_file() else 0
        try:
            with writing(path), path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        except OutputError:
            with suppress(OSError):  # the next line would be appended to half of this one
                os.truncate(path, size)
            raise


def make_run_folder(run: Path) -> None:
    """Create ``run`` if needed; raises :class:`OutputError` if that fails."""
    check_run_folder(run)
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)


def check_run_folder(run: Path) -> None:
    """Raise :class:`OutputError` if ``run`` is a file, before any slow work begins."""
    if run.exists() and not run.is_dir():
        raise OutputError(f"{run} is a file; give a folder for the run")


def _curves(folder: Path, first_step: int) -> Any:
    """TensorBoard's writer; entries that a killed run wrote past its checkpoint are hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning(
            "no TensorBoard curves: tensorboard is not installed (`%s`); log.jsonl has the same "
            "figures",
            install_command("train"),
        )
        return None
    return SummaryWriter(str(folder), purge_step=first_step + 1)
