"""What a run shows of itself: a bar, ``RUN/log.jsonl``, TensorBoard curves, sample grids."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dloral.frames.clips import as_bytes

log = logging.getLogger(__name__)

QUIET_SECONDS = 30
"""Between two lines of the bar where nobody sees it move (a file, a cluster's log)."""


class Monitor:
    """Use as a context; only the main process of a run has one that writes (``writes``)."""

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
        self.curves = _curves(run / "tensorboard", first_step) if writes else None
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
        if self.curves is not None:
            self.curves.close()

    def step(
        self, step: int, losses: Mapping[str, float], learning_rate: float, stage: str
    ) -> None:
        """After every step: its weighted losses, and how it was trained."""
        self.bar.update()
        if stage:
            self.bar.set_description_str(stage, refresh=False)
        self.bar.set_postfix({k: f"{v:.4f}" for k, v in losses.items()}, refresh=False)
        if step % self.log_every or not self.writes:
            return
        seconds = round(time.monotonic() - self.started, 1)
        self._write({"step": step, "seconds": seconds, **losses})
        if self.curves is not None:
            for name, value in losses.items():
                self.curves.add_scalar(f"loss/{name}", value, step)
            self.curves.add_scalar("learning rate", learning_rate, step)
            if stage:
                self.curves.add_scalar("stage/enhancement", float(stage != "consistency"), step)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Held-out figures."""
        if not self.writes:
            return
        self._write({"step": step, "held_out": dict(figures)})
        if self.curves is not None:
            for name, value in figures.items():
                self.curves.add_scalar(f"held out/{name}", value, step)

    def picture(self, step: int, grid: Tensor) -> None:
        """A sample grid (3,H,W) in [0, 1]."""
        if not self.writes:
            return
        folder = self.run / "samples"
        folder.mkdir(exist_ok=True)
        pixels = as_bytes(grid)
        Image.fromarray(pixels).save(folder / f"step-{step:06}.png")
        if self.curves is not None:
            self.curves.add_image("samples", pixels, step, dataformats="HWC")

    def _write(self, entry: Mapping[str, Any]) -> None:
        with (self.run / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _curves(folder: Path, first_step: int) -> Any:
    """TensorBoard's writer; what a killed run wrote past its checkpoint is hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning(
            "no TensorBoard curves: `pip install -r requirements-train.txt` brings them; "
            "log.jsonl has the same figures"
        )
        return None
    return SummaryWriter(str(folder), purge_step=first_step + 1)
