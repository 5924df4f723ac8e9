"""Plot the curves of one or more runs from their logs.

    python -m dloral curve RUNS/base RUNS/flow RUNS/algorithm1 -o curves.png

Needs matplotlib, from the extra `train`.
"""

import json
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

import matplotlib.pyplot as plt

from dloral.errors import InputError

SMOOTHING = 5  # log entries per point of the loss curves


Curves = dict[str, dict[str, list[tuple[int, float]]]]
"""Panel -> name -> (step, value) in the order of steps."""


def read_log(run: Path) -> Curves:
    """A run's training losses, one panel for each of its phases, and one for each kind of held-out
    figure.

    A run resumed from a checkpoint may have logged some steps twice; the later entry counts.
    """
    panels: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    try:
        entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        entries = [entry for entry in entries if "step" in entry]  # others describe the run itself
        steps = [entry.pop("step") for entry in entries]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{run} has no readable log.jsonl; give a run folder") from error
    if not entries:
        raise InputError(
            f"{run}/log.jsonl contains no steps; give the folder of a run that has some"
        )
    for step, entry in zip(steps, entries, strict=True):
        entry.pop("seconds", None)
        for name, value in entry.pop("held_out", {}).items():
            unit, _, setting = name.partition(" ")
            panels[f"held out: {unit}"][setting or unit][step] = value
        title = entry.pop("phase", "training losses")
        for name, value in entry.items():
            panels[title][name][step] = value
    return {
        title: {name: sorted(points.items()) for name, points in lines.items()}
        for title, lines in panels.items()
    }


def smoothed(points: list[tuple[int, float]]) -> np.ndarray:
    """Means of consecutive points, (N,2); unchanged if there are few."""
    if len(points) < SMOOTHING**2:
        return np.array(points)
    usable = len(points) // SMOOTHING * SMOOTHING
    return np.array(points[:usable]).reshape(-1, SMOOTHING, 2).mean(axis=1)


def phases_of(run: Path) -> list[Path]:
    """A run, or the runs of its phases, in chronological order."""
    logs = sorted(run.glob("*/log.jsonl"), key=lambda log: log.stat().st_mtime)
    return [run] if (run / "log.jsonl").is_file() or not logs else [log.parent for log in logs]


def draw(runs: list[Path], target: Path) -> None:
    """Plot a row per run or phase: its losses, then a panel for each kind of held-out figure."""
    runs = [part for run in runs for part in phases_of(run)]
    panels = [read_log(run) for run in runs]
    columns = max(map(len, panels))
    figure, axes = plt.subplots(
        len(runs), columns, figsize=(4.2 * columns, 3 * len(runs)), squeeze=False
    )
    for row, run, contents in zip(axes, runs, panels, strict=True):
        for panel, (title, lines) in zip(row, contents.items(), strict=False):
            for name, points in lines.items():
                curve = points if title.startswith("held out") else smoothed(points)
                panel.plot(*np.array(curve).T, label=name, marker=".", linewidth=1)
            panel.set_title(f"{run.name}, {title}", fontsize=9)
            panel.set_xlabel("step", fontsize=8)
            panel.tick_params(labelsize=7)
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7)
        for panel in row[len(contents) :]:
            panel.axis("off")
    figure.tight_layout()
    figure.savefig(target, dpi=75)
