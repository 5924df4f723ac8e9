"""A study's figures: curves over the steps and in the plane (Figure A1), and a sheet of crops."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dloral.evaluation.catalogue import METRIC_SPECS
from dloral.evaluation.report import arrow
from dloral.evaluation.statistics import estimate, is_finite
from dloral.evaluation.studies import Study
from dloral.evaluation.study_claims import per_seed, qualities
from dloral.evaluation.study_training import SHOWN
from dloral.packages import needs_extra

Found = Mapping[str, Any]
Points = dict[int, list[float]]
"""Step -> a value a seed."""

STAGE_COLOURS = {"consistency": "#e3ecf7", "enhancement": "#fbeedd", "joint": "#efefef"}
COLOURS = ("#2563a8", "#c2571a", "#2f7d4f", "#7a4fa3")
GREY = "#6b6b6b"


def check_can_draw() -> None:
    """Raises :class:`MissingPackageError` where the package that draws curves is not installed."""
    with needs_extra("evaluate", "the figure of curves"):
        import matplotlib as mpl

        mpl.use("Agg")


def draw_curves(study: Study, found: Found, target: Path) -> bool:
    """Draw a row for quality and one for the warping error over the steps, one column per variant,
    stages shaded; beside them, one measure against the other. False where neither was measured."""
    names = [*qualities(found)[:1]]
    names += [name for name in ("warping_error",) if name in found["metrics"]]
    if not names:
        return False
    check_can_draw()
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    count = len(study.variants)
    plane = len(names) == 2
    figure = plt.figure(figsize=(3.1 * count + 4.6 * plane, 2.5 * len(names) + 0.9))
    grid = figure.add_gridspec(
        len(names), count + plane, width_ratios=[3.1] * count + [4.2] * plane
    )
    for place, name in enumerate(names):
        axes = [figure.add_subplot(grid[place, column]) for column in range(count)]
        for axis, variant, colour in zip(axes, study.variants, COLOURS, strict=False):
            runs = [run for run in found["runs"] if run["variant"] == variant.name]
            _shade(axis, runs, found["steps"])
            _draw_runs(axis, runs, name, colour)
            if not place:
                axis.set_title(variant.title, fontsize=10, loc="left")
            if place == len(names) - 1:
                axis.set_xlabel("step", fontsize=9)
            _plain(axis)
        _share_scale(axes)
        axes[0].set_ylabel(_label(name), fontsize=9)
    if plane:
        _draw_plane(figure.add_subplot(grid[:, -1]), study, found, names)
    stages = {stage: None for run in found["runs"] for stage, _ in run["stages"]}
    handles = [
        mpl.patches.Patch(color=STAGE_COLOURS[stage], label=f"{stage} stage") for stage in stages
    ]
    figure.legend(handles=handles, loc="lower left", ncols=3, fontsize=8, frameon=False)
    figure.align_ylabels()
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(target, dpi=130)
    plt.close(figure)
    return True


def _label(name: str) -> str:
    spec = METRIC_SPECS[name]
    unit = f", {spec.unit}" if spec.unit else ""
    return f"{spec.title} {arrow(spec)}{unit}"


def _plain(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.ticklabel_format(axis="both", useOffset=False)
    axis.locator_params(axis="x", nbins=5)


def _share_scale(axes: list[Any]) -> None:
    """Share one scale per measure, so that variants compare; tick labels only at the first."""
    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(low, high)
        axis.tick_params(labelleft=axis is axes[0])


def _by_step(runs: list[Any], name: str) -> Points:
    points: Points = {}
    for run in runs:
        for point in run["points"]:
            if is_finite(point.get(name)):
                points.setdefault(point["step"], []).append(point[name])
    return {step: points[step] for step in sorted(points)}


def _draw_runs(axis: Any, runs: list[Any], name: str, colour: str) -> None:
    """Draw each seed thinly, and their mean with its interval (t over seeds)."""
    for run in runs:
        of_run = _by_step([run], name)
        axis.plot(list(of_run), [v[0] for v in of_run.values()], color=colour, alpha=0.25, lw=0.8)
    points = {step: estimate(values) for step, values in _by_step(runs, name).items()}
    means = {step: one for step, one in points.items() if one is not None}
    if not means:
        return
    middle = np.array([one.mean for one in means.values()])
    half = np.array([one.half_width or 0.0 for one in means.values()])
    axis.fill_between(list(means), middle - half, middle + half, color=colour, alpha=0.15, lw=0)
    axis.plot(list(means), middle, color=colour, lw=1.8, marker="o", ms=3)


def _shade(axis: Any, runs: list[Any], steps: int) -> None:
    axis.set_xlim(0, steps)
    if not runs:
        return
    stages = runs[0]["stages"]
    ends = [start for _, start in stages[1:]] + [runs[0]["steps"]]
    for (stage, start), end in zip(stages, ends, strict=True):
        axis.axvspan(start, end, color=STAGE_COLOURS[stage], lw=0, zorder=0)


def _draw_plane(axis: Any, study: Study, found: Found, names: list[str]) -> None:
    """Draw each variant's path through the plane of both measures (mean over seeds), from the
    small dot to the large one, which has the final figures' intervals."""
    for variant, colour in zip(study.variants, COLOURS, strict=False):
        runs = [run for run in found["runs"] if run["variant"] == variant.name]
        x, y = (_by_step(runs, name) for name in names)
        way = [(np.mean(x[step]), np.mean(y[step])) for step in x if step in y]
        if not way:
            continue
        axis.plot(*zip(*way, strict=True), color=colour, lw=1.2, alpha=0.8)
        axis.plot(*way[0], "o", color=colour, ms=3.5)
        ends = [estimate(per_seed(found, variant.name, name).values()) for name in names]
        known = [one for one in ends if one is not None]
        if len(known) < len(names):
            continue
        half = [one.half_width or 0.0 for one in known]
        axis.errorbar(
            *(one.mean for one in known), xerr=half[0], yerr=half[1], fmt="o", ms=8, color=colour,
            capsize=2, lw=1, label=variant.title,
        )  # fmt: skip
    axis.set_title("the way of each, and its last figures", fontsize=10, loc="left")
    axis.set_xlabel(_label(names[0]), fontsize=9)
    axis.set_ylabel(_label(names[1]), fontsize=9)
    axis.margins(0.12)
    axis.legend(fontsize=8, frameon=False)
    _plain(axis)


def draw_sheet(study: Study, found: Found, out: Path) -> bool:
    """Write ``OUT/sheet.jpg``: labelled crops of the input, every variant (its first finished
    seed) and the truth; False where there is nothing to show."""
    training = found["kind"] == "training"
    pictures = {}
    for variant in study.variants:
        seeds = [run["seed"] for run in found["runs"] if run["variant"] == variant.name]
        place = f"runs/{variant.name}-{min(seeds, default=0)}/{SHOWN}"
        path = out / (place if training else f"shown-{variant.name}.png")
        if path.is_file():
            pictures[variant.title] = Image.open(path)
    if not pictures:
        return False
    first: Image.Image = next(iter(pictures.values()))
    parts = 3 if training else 2  # input, restored, and the truth where there is one
    side = first.width // parts
    rows = min(first.height, 4 * side)
    columns = {"input": first.crop((0, 0, side, rows))}
    for title, picture in pictures.items():
        columns[title] = picture.crop((side, 0, 2 * side, rows))
    if training:
        columns["truth"] = first.crop((2 * side, 0, 3 * side, rows))
    label = 18
    canvas = Image.new("RGB", (side * len(columns), rows + label), "white")
    draw = ImageDraw.Draw(canvas)
    for place_x, (title, column) in enumerate(columns.items()):
        canvas.paste(column, (place_x * side, label))
        draw.text((place_x * side + 4, 3), title[: side // 6], fill="black")
    canvas.save(out / "sheet.jpg", quality=90)
    return True
