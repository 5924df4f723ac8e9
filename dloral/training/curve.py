"""Draw the curves of one or more runs from their logs.

    python -m dloral.training.curve RUNS/base RUNS/flow RUNS/algorithm1 -o curves.png

Needs matplotlib, which requirements-dev.txt brings.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

import matplotlib.pyplot as plt

SMOOTHING = 10  # log entries a point of the loss curves


def read_log(run: Path) -> tuple[dict[str, list], dict[str, list]]:
    """(training losses, held-out figures) of a run: name -> list of (step, value).

    A run that was stopped and went on from a checkpoint logged some steps twice; the later counts.
    """
    losses: dict[str, dict[int, float]] = defaultdict(dict)
    figures: dict[str, dict[int, float]] = defaultdict(dict)
    for line in (run / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        step = entry.pop("step")
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


def draw(runs: list[Path], target: Path) -> None:
    """Two panels a run: losses on the left, held-out figures on the right."""
    figure, axes = plt.subplots(len(runs), 2, figsize=(11, 3.2 * len(runs)), squeeze=False)
    for (left, right), run in zip(axes, runs, strict=True):
        losses, figures = read_log(run)
        for name, points in losses.items():
            if len(points) >= SMOOTHING:
                left.plot(*smoothed(points).T, label=name, linewidth=1)
        for name, points in figures.items():
            right.plot(*np.array(points).T, label=name, marker=".", linewidth=1)
        left.set_title(f"{run.name}: training losses")
        right.set_title(f"{run.name}: held out")
        for panel in (left, right):
            panel.set_xlabel("step")
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    draw(given.runs, given.output)


if __name__ == "__main__":
    main()
