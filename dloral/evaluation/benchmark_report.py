"""A benchmark's outcome: Markdown, JSON, and one HTML page to look at."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dloral.evaluation.baselines import BICUBIC
from dloral.evaluation.benchmark import Benchmark
from dloral.evaluation.benchmark_looks import TRUTH
from dloral.evaluation.benchmark_methods import file_name
from dloral.evaluation.catalogue import METRIC_SPECS
from dloral.evaluation.page import template
from dloral.evaluation.published import PUBLISHED
from dloral.evaluation.report import arrow, explained, number, row
from dloral.evaluation.statistics import (
    Estimate,
    estimate,
    holm,
    paired_difference,
    paired_ratio,
    source_means,
)
from dloral.files import write_json, write_text

SIGNIFICANT = 0.05
BY_RATIO = "x: the ratio of geometric means, and its interval"
Differences = dict[str, dict[str, tuple[Estimate, float | None]]]


def per_source(
    done: Benchmark, method: str, metric: str, beside: str | None = None
) -> dict[str, float]:
    """A method's figure for each source: source -> mean over its clips; with ``beside``, over those
    that this method has too, so that a clip missing from one counts for neither."""
    clips = done.figures.get(method, {})
    values = {name: one["mean"][metric] for name, one in clips.items() if metric in one["mean"]}
    if beside is not None:
        others = done.figures.get(beside, {})
        shared = {name for name, one in others.items() if metric in one["mean"]}
        values = {name: value for name, value in values.items() if name in shared}
    return source_means(values, {name: one["source"] for name, one in clips.items()})


def totals(done: Benchmark) -> dict[str, dict[str, Estimate]]:
    """Method -> measure -> mean over sources with its interval."""
    found: dict[str, dict[str, Estimate]] = {}
    for method in done.methods:
        means = {name: estimate(per_source(done, method, name).values()) for name in done.metrics}
        found[method] = {name: mean for name, mean in means.items() if mean is not None}
    return found


def differences(done: Benchmark, base: str) -> Differences:
    """Method -> measure -> (method less ``base``, paired by source, or the logarithm of their ratio
    where the measure is compared by it; its p-value, corrected for the number of methods and
    measures compared with ``base``)."""
    found: dict[str, dict[str, Estimate]] = {}
    for method in done.methods:
        if method == base:
            continue
        pairs = {
            name: (paired_ratio if METRIC_SPECS[name].by_ratio else paired_difference)(
                per_source(done, method, name, base), per_source(done, base, name, method)
            )
            for name in done.metrics
        }
        found[method] = {name: one for name, one in pairs.items() if one is not None}
    tested = [(m, n) for m, ones in found.items() for n, one in ones.items() if one.p is not None]
    chances = [found[method][name].p or 0.0 for method, name in tested]
    corrected = dict(zip(tested, holm(chances), strict=True))
    return {
        method: {name: (one, corrected.get((method, name))) for name, one in ones.items()}
        for method, ones in found.items()
    }


def bases(done: Benchmark) -> list[str]:
    """The methods that the report compares with: bicubic, and the last, a model's full setting."""
    return list(dict.fromkeys([BICUBIC, done.methods[-1]]))


def seconds(done: Benchmark, method: str) -> float | None:
    """Mean seconds to restore a frame; None for bicubic."""
    found = [one["seconds_per_frame"] for one in done.figures[method].values()]
    return float(np.mean(found)) if found and method != BICUBIC else None


# Markdown ----------------------------------------------------------------------------------------


def markdown(done: Benchmark, command: str = "") -> str:
    """Tables of means and of paired differences, what went wrong, and the protocol."""
    lines = [f"# {done.dataset.name}", ""]
    lines += [f"    {command}", ""] if command else []
    lines += [about(done), "", means_table(done), ""]
    for base in bases(done):
        lines += [
            f"Each method minus {base}, paired by source (± 95 % interval; * p < {SIGNIFICANT} by "
            "Student's t, corrected for the number of figures by Holm)"
            + (f"; {BY_RATIO}:" if any(METRIC_SPECS[n].by_ratio for n in done.metrics) else ":"),
            "",
            differences_table(done, base),
            "",
        ]
    lines += [f"NOT MEASURED {name}: {why}" for name, why in done.failed.items()]
    lines += [f"NOT AVAILABLE {name}: {why}" for name, why in done.unavailable.items()]
    lines += ["", "## Protocol", ""]
    lines += [f"- {name}: {text}" for name, text in protocol_block(done).items()]
    lines += ["", "## Measures", ""]
    lines += [explained(METRIC_SPECS[name]) for name in done.metrics]
    return "\n".join(lines) + "\n"


def about(done: Benchmark) -> str:
    """How much was measured, in one sentence."""
    clips = {name: one for ones in done.figures.values() for name, one in ones.items()}
    sources = {one["source"] for one in clips.values()}
    frames = sum(one["num_frames"] for one in clips.values())
    return f"{len(clips)} clips of {len(sources)} sources, {frames} frames."


def means_table(done: Benchmark) -> str:
    """Markdown: one row per method, with the paper's where it has one for this data set."""
    heads = [
        "",
        *(f"{METRIC_SPECS[name].title} {arrow(METRIC_SPECS[name])}" for name in done.metrics),
    ]
    lines = [row([*heads, "s a frame"]), row(["---"] * (len(heads) + 1))]
    for method, means in totals(done).items():
        cells = [cell(name, means.get(name)) for name in done.metrics]
        took = seconds(done, method)
        lines.append(row([method, *cells, "" if took is None else f"{took:.3f}"]))
    for title, figures in paper_rows(done).items():
        cells = [number(METRIC_SPECS[name], figures.get(name)) for name in done.metrics]
        lines.append(row([title, *cells, ""]))
    return "\n".join(lines)


def differences_table(done: Benchmark, base: str) -> str:
    """Markdown: every other method minus ``base``."""
    heads = [
        "",
        *(f"{METRIC_SPECS[name].title} {arrow(METRIC_SPECS[name])}" for name in done.metrics),
    ]
    lines = [row(heads), row(["---"] * len(heads))]
    for method, ones in differences(done, base).items():
        lines.append(
            row([method, *(difference_cell(name, ones.get(name)) for name in done.metrics)])
        )
    return "\n".join(lines)


def cell(metric: str, found: Estimate | None) -> str:
    """``28.31 ± 0.42``."""
    spec = METRIC_SPECS[metric]
    if found is None:
        return "–"
    half = "" if found.half_width is None else f" ± {number(spec, found.half_width)}"
    return number(spec, found.mean) + half


def difference_cell(metric: str, found: tuple[Estimate, float | None] | None) -> str:
    """``+0.31 ± 0.12*``, or ``x0.52 (0.40 to 0.68)*`` by ratio; a star marks significance."""
    if found is None:
        return "–"
    one, chance = found
    star = "*" if chance is not None and chance < SIGNIFICANT else ""
    if METRIC_SPECS[metric].by_ratio:
        low, high = (math.exp(one.mean + sign * (one.half_width or 0)) for sign in (-1, 1))
        span = "" if one.half_width is None else f" ({low:.2f} to {high:.2f})"
        return f"x{math.exp(one.mean):.2f}{span}{star}"
    half = "" if one.half_width is None else f" ± {number(METRIC_SPECS[metric], one.half_width)}"
    return f"{one.mean:+.{METRIC_SPECS[metric].digits}f}{half}{star}"


def paper_rows(done: Benchmark) -> dict[str, Mapping[str, float]]:
    """Title -> measure -> what the paper prints for this data set."""
    name = done.dataset.name.lower()
    return next((rows for start, rows in PUBLISHED.items() if name.startswith(start)), {})


def protocol_block(done: Benchmark) -> dict[str, str]:
    """What the figures depend on: the protocol, and what the measures report of this run."""
    found = {name: str(value) for name, value in done.protocol.items() if name != "format"}
    measured: set[str] = set()  # for these, what the run reports is more exact
    for ones in done.figures.values():
        for one in ones.values():
            for name, text in one["conditions"].items():
                if name not in done.protocol or name in measured:
                    known = found.get(name, text)
                    found[name] = known if text in known else f"{known}; {text}"
                elif name == "flow":
                    found[name] = text
                    measured.add(name)
    return found


# JSON --------------------------------------------------------------------------------------------


def as_dict(done: Benchmark, command: str = "") -> dict[str, Any]:
    """Everything: means, all paired differences, every clip's figures, frame by frame."""
    return {
        "command": command,
        "data_set": done.dataset.name,
        "protocol": protocol_block(done),
        "metrics": list(done.metrics),
        "methods": {
            method: {
                "seconds_per_frame": seconds(done, method),
                "mean": {name: vars(one) for name, one in means.items()},
            }
            for method, means in totals(done).items()
        },
        "differences": {
            base: {
                method: {
                    name: {**vars(one), "p_corrected": chance}
                    for name, (one, chance) in ones.items()
                }
                for method, ones in differences(done, base).items()
            }
            for base in done.methods
        },
        "paper": paper_rows(done),
        "failed": done.failed,
        "unavailable": done.unavailable,
        "clips": done.figures,
    }


# HTML --------------------------------------------------------------------------------------------


def html(done: Benchmark, out: Path, command: str = "") -> str:
    """One self-contained page; pictures are read from ``out/clips``."""
    names = list(done.figures[BICUBIC]) if done.figures.get(BICUBIC) else []
    return template("benchmark.html.j2").render(
        title=done.dataset.name,
        about=about(done),
        command=command,
        specs=[METRIC_SPECS[name] for name in done.metrics],
        by_ratio=BY_RATIO,
        arrow=arrow,
        number=number,
        means={
            method: [cell(name, ones.get(name)) for name in done.metrics]
            for method, ones in totals(done).items()
        },
        best=_best(done),
        seconds={method: seconds(done, method) for method in done.methods},
        paper={
            title: [number(METRIC_SPECS[name], figures.get(name)) for name in done.metrics]
            for title, figures in paper_rows(done).items()
        },
        differences={base: _difference_rows(done, base) for base in done.methods},
        shown_first=bases(done),
        clips=[_clip(done, out, name) for name in names],
        failed=done.failed,
        unavailable=done.unavailable,
        protocol=protocol_block(done),
    )


def _difference_rows(done: Benchmark, base: str) -> dict[str, list[tuple[str, str]]]:
    """Method -> (text, "good", "bad" or "") for every measure."""
    found: dict[str, list[tuple[str, str]]] = {}
    for method, ones in differences(done, base).items():
        cells = []
        for name in done.metrics:
            one = ones.get(name)
            cells.append((difference_cell(name, one), _verdict(done, name, method, base, one)))
        found[method] = cells
    return found


def _verdict(
    done: Benchmark,
    metric: str,
    method: str,
    base: str,
    found: tuple[Estimate, float | None] | None,
) -> str:
    if found is None or found[1] is None or found[1] >= SIGNIFICANT:
        return ""
    if METRIC_SPECS[metric].by_ratio:
        return "good" if METRIC_SPECS[metric].badness(found[0].mean) < 0 else "bad"
    means = [estimate(per_source(done, one, metric).values()) for one in (method, base)]
    ours, theirs = (METRIC_SPECS[metric].badness(mean.mean) if mean else 0.0 for mean in means)
    return "good" if ours < theirs else "bad"


def _best(done: Benchmark) -> dict[int, str]:
    """Column -> the method with the best mean."""
    found = {}
    means = totals(done)
    for column, name in enumerate(done.metrics):
        badness = {
            method: METRIC_SPECS[name].badness(ones[name].mean)
            for method, ones in means.items()
            if name in ones
        }
        if len(badness) > 1:
            found[column] = min(badness, key=lambda method: badness[method])
    return found


def _clip(done: Benchmark, out: Path, name: str) -> dict[str, Any]:
    folder = out / "clips" / name
    shown = {method: file_name(method) for method in done.methods if name in done.figures[method]}
    files = {**shown, TRUTH: TRUTH}
    pictures, profiles = (
        {
            title: _data_address(folder / f"{file}.{kind}")
            for title, file in files.items()
            if (folder / f"{file}.{kind}").is_file()
        }
        for kind in ("jpg", "png")
    )
    one = done.figures[BICUBIC][name]
    source = "" if one["source"] == name else f", from {one['source']}"
    return {
        "name": name,
        "about": f"{one['width']} x {one['height']}, {one['num_frames']} frames{source}",
        "pictures": pictures,
        "profiles": profiles if one["num_frames"] > 1 else {},
        "rows": {
            method: [
                number(METRIC_SPECS[m], done.figures[method][name]["mean"].get(m))
                for m in done.metrics
            ]
            for method in shown
        },
    }


def _data_address(path: Path) -> str:
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()


def write_benchmark(done: Benchmark, out: Path, command: str = "") -> None:
    """``OUT/benchmark.json``, ``README.md`` and ``index.html``."""
    write_json(out / "benchmark.json", as_dict(done, command))
    write_text(out / "README.md", markdown(done, command))
    write_text(out / "index.html", html(done, out, command))
