"""Draw the curves of one or more runs from their logs.

    python -m dloral.training.curve RUNS/base RUNS/flow RUNS/algorithm1 -o curves.png

Needs matplotlib, which requirements-dev.txt brings.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

import matplotlib.pyplot as plt

from dloral.errors import InputError, exit_status

SMOOTHING = 5  # log entries a point of the loss curves


def read_log(run: Path) -> tuple[dict[str, list], dict[str, list]]:
    """(training losses, held-out figures) of a run: name -> list of (step, value).

    A run that was stopped and went on from a checkpoint logged some steps twice; the later counts.
    """
    losses: dict[str, dict[int, float]] = defaultdict(dict)
    figures: dict[str, dict[int, float]] = defaultdict(dict)
    try:
        entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        steps = [entry.pop("step") for entry in entries]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{run} has no readable log.jsonl with a step in each line; give the folder of a run"
        ) from error
    for step, entry in zip(steps, entries, strict=True):
        entry.pop("seconds", None)
        for name, value in entry.pop("held_out", {}).items():
            figures[name][step] = value
        for name, value in entry.items():
            losses[name][step] = value
    return tuple(  # type: ignore[return-value]
        {name: sorted(points.items()) for name, points in group.items()}
        for group in (losses, figures)
    )


def smoothed(points: list[tuple[int, float]]) -> np.ndarray:
    """Means of consecutive points, (N,2)."""
    usable = len(points) // SMOOTHING * SMOOTHING
    return np.array(points[:usable]).reshape(-1, SMOOTHING, 2).mean(axis=1)


def grouped(figures: dict[str, list]) -> dict[str, dict[str, list]]:
    """Held-out figures of one unit together: ``psnr_gain 1/0`` and ``psnr_gain 1/1``, say."""
    groups: dict[str, dict[str, list]] = defaultdict(dict)
    for name, points in figures.items():
        unit, _, setting = name.partition(" ")
        groups[unit][setting or unit] = points
    return dict(groups)


def draw(runs: list[Path], target: Path) -> None:
    """A row a run: its losses, then one panel for each kind of held-out figure."""
    logs = [read_log(run) for run in runs]
    panels = [
        {"training losses": {n: smoothed(p) for n, p in losses.items() if len(p) >= SMOOTHING}}
        | {f"held out: {unit}": group for unit, group in grouped(figures).items()}
        for losses, figures in logs
    ]
    columns = max(map(len, panels))
    figure, axes = plt.subplots(
        len(runs), columns, figsize=(4.2 * columns, 3 * len(runs)), squeeze=False
    )
    for row, run, contents in zip(axes, runs, panels, strict=True):
        for panel, (title, lines) in zip(row, contents.items(), strict=False):
            for name, points in lines.items():
                panel.plot(*np.array(points).T, label=name, marker=".", linewidth=1)
            panel.set_title(f"{run.name}, {title}", fontsize=9)
            panel.set_xlabel("step", fontsize=8)
            panel.tick_params(labelsize=7)
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7)
        for panel in row[len(contents) :]:
            panel.axis("off")
    figure.tight_layout()
    figure.savefig(target, dpi=75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    draw(given.runs, given.output)


if __name__ == "__main__":
    sys.exit(exit_status(main, "curve"))
