"""A study's outcome: Markdown with the paper's numbers beside, curves, a sheet, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dloral.evaluation.catalogue import METRIC_SPECS
from dloral.evaluation.published import COLUMNS
from dloral.evaluation.report import arrow, explained, number, row
from dloral.evaluation.studies import SHOWN, Study
from dloral.files import write_json, write_text
from dloral.packages import needs_extra

QUALITY = ("musiq", "maniqa", "clipiqa", "lpips_like", "niqe", "psnr")
"""What stands for quality: the first that was measured."""

Found = Mapping[str, Any]
STAGE_COLOURS = {"consistency": "#dbe7f5", "enhancement": "#f9e8d2", "joint": "#e8e8e8"}
PROBABLE = 2.0
"""Standard errors of the difference of two variants, seed by seed, from which it is called seen."""


def write_study(study: Study, found: dict[str, Any], out: Path, command: str) -> Path:
    """``OUT/study.json``, ``README.md``, ``curves.png`` and ``sheet.jpg``; returns the README."""
    write_json(out / "study.json", {**found, "command": command})
    pictures = []
    if found["kind"] == "training":
        draw_curves(study, found, out / "curves.png")
        pictures.append("![Quality and warping error over the steps](curves.png)")
    if draw_sheet(study, found, out):
        pictures.append("![The same crops by every variant](sheet.jpg)")
    lines = [f"# {study.title}", "", f"    {command}", "", _about(found), "", table(study, found)]
    lines += ["", *verdicts(study, found)]
    lines += ["", "\n\n".join(pictures), ""] if pictures else [""]
    lines += [f"NOT AVAILABLE {name}: {why}" for name, why in found["unavailable"].items()]
    lines += [f"NOT MEASURED {name}: {why}" for name, why in found.get("failed", {}).items()]
    lines += [explained(METRIC_SPECS[name]) for name in found["metrics"]]
    lines += [f"- {name}: {text}" for name, text in found.get("conditions", {}).items()]
    write_text(out / "README.md", "\n".join(lines) + "\n")
    return out / "README.md"


def _about(found: Found) -> str:
    if found["kind"] == "inference":
        return (
            f"One trained model, its switches at inference; mean over {found['num_clips']} clips. "
            "The paper trains each row from scratch."
        )
    minutes = sum(run["seconds"] for run in found["runs"]) / 60
    return (
        f"{found['steps']} steps a run, {found['seeds']} seeds (mean ± standard deviation), "
        f"{found['num_clips']} held-out clips; {minutes:.0f} minutes of training and measuring."
    )


def finals(found: Found, variant: str, metric: str) -> list[float]:
    """A variant's last figures, one a seed."""
    runs = [run["final"] for run in found["runs"] if run["variant"] == variant]
    return [final[metric] for final in runs if final.get(metric) is not None]


def table(study: Study, found: Found) -> str:
    """Measured means and spreads; the paper's numbers to the right."""
    metrics = list(found["metrics"])
    paper = COLUMNS if study.published else ()
    heads = ["", *(f"{METRIC_SPECS[name].title} {arrow(METRIC_SPECS[name])}" for name in metrics)]
    heads += [f"paper: {METRIC_SPECS[name].title}" for name in paper]
    lines = [row(heads), row(["---"] * len(heads))]
    for variant in study.variants:
        cells = [_spread(metric, finals(found, variant.name, metric)) for metric in metrics]
        known = study.published.get(variant.name, ())
        lines.append(row([variant.title, *cells, *(f"{value:g}" for value in known)]))
    return "\n".join(lines)


def _spread(metric: str, values: list[float]) -> str:
    spec = METRIC_SPECS[metric]
    if not values:
        return "–"
    mean = number(spec, float(np.mean(values)))
    return f"{mean} ± {number(spec, float(np.std(values, ddof=1)))}" if len(values) > 1 else mean


def verdicts(study: Study, found: Found) -> list[str]:
    """Of every ordering that the paper claims, whether it is seen here, and how surely."""
    quality = next((name for name in QUALITY if name in found["metrics"]), None)
    lines = []
    if quality and quality not in COLUMNS:
        lines.append(
            f"Quality is measured by {METRIC_SPECS[quality].title} here, and by MUSIQ in the paper."
        )
    for metric, better, worse in study.claims:
        name = quality if metric == "quality" else metric
        if name is None or name not in found["metrics"]:
            continue
        first, second = (finals(found, variant, name) for variant in (better, worse))
        if first and second:
            lines.append(_verdict(study, name, better, worse, first, second))
    if study.note:
        lines.append(study.note)
    return [line for text in lines for line in (text, "")]


def _verdict(
    study: Study, name: str, better: str, worse: str, first: list[float], second: list[float]
) -> str:
    spec = METRIC_SPECS[name]
    titles = {variant.name: variant.title for variant in study.variants}
    sign = 1 if spec.better == "higher" else -1
    gain = sign * (np.mean(first) - np.mean(second))
    figures = (
        f"{number(spec, float(np.mean(first)))} against {number(spec, float(np.mean(second)))}"
    )
    by = spec.title if name in COLUMNS else f"Quality ({spec.title})"
    said = f"{by}: the paper has {titles[better]} ahead of {titles[worse]}; here {figures}"
    if len(set(figures.split(" against "))) < 2:
        return f"{said}: no difference."
    if min(len(first), len(second)) < 2:
        return f"{said}: {'seen' if gain > 0 else 'not seen'}, with one run each."
    # Runs of one seed share their first weights and their clips, so seeds are compared pairwise.
    gains = sign * (np.array(first) - np.array(second))
    error = float(np.std(gains, ddof=1) / np.sqrt(len(gains)))
    said += f" (by {number(spec, float(gain))} ± {number(spec, error)}, over {len(gains)} seeds)"
    if number(spec, abs(float(gain))) == number(spec, 0.0):
        return f"{said}: no difference."
    if abs(gain) < PROBABLE * error:
        return f"{said}: no difference that the spread over seeds would allow to claim."
    return f"{said}: {'seen' if gain > 0 else 'the opposite is seen'}."


def draw_curves(study: Study, found: Found, target: Path) -> None:
    """Quality against warping error over the steps, a panel a variant, stages shaded; then the
    last figures. As Figure A1."""
    with needs_extra("evaluate", "the figure of curves"):
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    quality = next((name for name in QUALITY if name in found["metrics"]), None)
    names = [name for name in (quality, "warping_error") if name in found["metrics"] and name]
    count = len(study.variants)
    figure, axes = plt.subplots(1, count + 1, figsize=(3.9 * (count + 1), 3.3), squeeze=False)
    colours = dict(zip(names, ("#c2410c", "#1d4ed8"), strict=False))
    panels: dict[str, list[Any]] = {name: [] for name in names}
    for axis, variant in zip(axes[0], study.variants, strict=False):
        runs = [run for run in found["runs"] if run["variant"] == variant.name]
        _shade(axis, runs[0]["stages"], found["steps"])
        axis.set_title(variant.title, fontsize=10)
        axis.set_xlabel("step")
        for place, name in enumerate(names):
            side = axis if not place else axis.twinx()
            panels[name].append(side)
            by_step: dict[int, list[float]] = {}
            for run in runs:
                points = [(p["step"], p[name]) for p in run["points"] if p.get(name) is not None]
                steps, values = zip(*points, strict=True) if points else ((), ())
                side.plot(steps, values, color=colours[name], alpha=0.35, lw=1)
                for step, value in points:
                    by_step.setdefault(step, []).append(value)
            means = [np.mean(by_step[step]) for step in sorted(by_step)]
            side.plot(sorted(by_step), means, color=colours[name], lw=2, marker="o", ms=3)
            side.set_ylabel(
                f"{METRIC_SPECS[name].title} {arrow(METRIC_SPECS[name])}", color=colours[name]
            )
            side.tick_params(axis="y", labelcolor=colours[name], labelsize=8)
            side.ticklabel_format(axis="y", useOffset=False)
    for sides in panels.values():  # one scale for a measure, so that panels can be compared
        low = min(side.get_ylim()[0] for side in sides)
        high = max(side.get_ylim()[1] for side in sides)
        for side in sides:
            side.set_ylim(low, high)
    _draw_finals(axes[0][-1], study, found, names)
    figure.tight_layout()
    figure.savefig(target, dpi=130)
    plt.close(figure)


def _shade(axis: Any, stages: list[list[Any]], steps: int) -> None:
    ends = [start for _, start in stages[1:]] + [steps]
    labelled = set()
    for (stage, start), end in zip(stages, ends, strict=True):
        label = None if stage in labelled else stage
        labelled.add(stage)
        axis.axvspan(start, end, color=STAGE_COLOURS[stage], lw=0, label=label, zorder=0)
    axis.set_xlim(0, steps)
    axis.legend(fontsize=7, loc="upper right", framealpha=0.7)


def _draw_finals(axis: Any, study: Study, found: Found, names: list[str]) -> None:
    """Each variant's last figures with the spread over seeds: right and low is where to be."""
    axis.set_title("last figures", fontsize=10)
    if len(names) < 2:
        axis.axis("off")
        return
    for variant in study.variants:
        x, y = (finals(found, variant.name, name) for name in names)
        spread = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in (x, y)]
        axis.errorbar(
            *(np.mean(x), np.mean(y), spread[1], spread[0]),
            fmt="o",
            capsize=3,
            ms=5,
            label=variant.title,
        )
    axis.legend(fontsize=7, framealpha=0.7)
    axis.margins(0.25)
    axis.set_xlabel(f"{METRIC_SPECS[names[0]].title} {arrow(METRIC_SPECS[names[0]])}")
    axis.set_ylabel(f"{METRIC_SPECS[names[1]].title} {arrow(METRIC_SPECS[names[1]])}")


def draw_sheet(study: Study, found: Found, out: Path) -> bool:
    """``OUT/sheet.jpg``: crops of the input, every variant (first seed) and the truth, labelled."""
    training = found["kind"] == "training"
    shown = {
        variant.title: out / f"runs/{variant.name}-0/{SHOWN}"
        if training
        else out / f"shown-{variant.name}.png"
        for variant in study.variants
    }
    pictures = {title: Image.open(path) for title, path in shown.items() if path.is_file()}
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
    for place, (title, column) in enumerate(columns.items()):
        canvas.paste(column, (place * side, label))
        draw.text((place * side + 4, 3), title[: side // 6], fill="black")
    canvas.save(out / "sheet.jpg", quality=90)
    return True
