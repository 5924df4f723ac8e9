"""What was measured, as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dloral.errors import OutputError
from dloral.evaluation.evaluate import ClipResult, Evaluation
from dloral.evaluation.measures import MetricSpec
from dloral.files import write_json, write_text

FORMAT = 1


def markdown(evaluation: Evaluation) -> str:
    """A table (one row per clip, and the mean), what went wrong, and what each figure means."""
    specs = evaluation.specs
    measured = [result for result in evaluation.results if not result.error]
    heads = ["clip", "frames", *(f"{spec.title} {arrow(spec)}" for spec in specs)]
    rows = [
        [result.pair.name, str(result.measured.num_frames)]
        + [number(spec, result.measured.totals.get(spec.name)) for spec in specs]
        for result in measured
    ]
    if len(measured) > 1:
        totals = evaluation.totals
        frames = sum(result.measured.num_frames for result in measured)
        mean = [number(spec, totals.get(spec.name)) for spec in specs]
        rows.append([f"mean of {len(measured)}", str(frames), *mean])
    lines = [row(heads), row(["---"] * len(heads)), *map(row, rows)] if rows else []
    lines += [""] if lines else []
    lines += [f"NOT MEASURED {r.pair.name}: {r.error}" for r in evaluation.results if r.error]
    lines += [f"NOT AVAILABLE {name}: {why}" for name, why in evaluation.unavailable.items()]
    lines += [explained(spec) for spec in specs] if rows else []
    lines += [f"- {name}: {text}" for name, text in conditions(evaluation).items()]
    return "\n".join(lines)


def row(cells: list[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def arrow(spec: MetricSpec) -> str:
    """Which direction is better, for a column heading."""
    return {"higher": "↑", "lower": "↓"}.get(spec.better, "→1")


def number(spec: MetricSpec, value: float | None) -> str:
    """A figure as it is printed."""
    return "–" if value is None or math.isnan(value) else f"{value:.{spec.digits}f}"


def explained(spec: MetricSpec) -> str:
    """A spec as one line."""
    unit = f" ({spec.unit})" if spec.unit else ""
    return (
        f"- {spec.title}{unit}, {spec.better} is better, {spec.span}: {spec.definition} "
        f"[{spec.source}]"
    )


def conditions(evaluation: Evaluation) -> dict[str, str]:
    """What the figures depend on besides their specs, each once."""
    found: dict[str, str] = {}
    for result in evaluation.results:
        for name, text in result.measured.conditions.items():
            known = found.get(name, text)
            found[name] = known if text in known else f"{known}; {text}"
    if evaluation.settings.every > 1 and any(spec.slow for spec in evaluation.specs):
        slow = ", ".join(spec.title for spec in evaluation.specs if spec.slow)
        found["every"] = f"{slow} on every {evaluation.settings.every}th frame"
    return found


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The report for JSON; missing figures are null."""
    return {
        "format": FORMAT,
        "measures": {
            spec.name: {
                "title": spec.title,
                "unit": spec.unit,
                "range": spec.span,
                "better": spec.better,
                "compares_with": spec.scope,
                "definition": spec.definition,
                "source": spec.source,
            }
            for spec in evaluation.specs
        },
        "conditions": conditions(evaluation),
        "unavailable": evaluation.unavailable,
        "mean": {name: _finite(value) for name, value in evaluation.totals.items()},
        "clips": [_clip(result) for result in evaluation.results],
    }


def _clip(result: ClipResult) -> dict[str, Any]:
    pair = result.pair
    described: dict[str, Any] = {
        "name": pair.name,
        "restored": str(pair.restored),
        "reference": str(pair.reference) if pair.reference else None,
        "input": str(pair.lq) if pair.lq else None,
    }
    if result.error:
        return {**described, "error": result.error}
    measured = result.measured
    height, width = result.size or (0, 0)
    return {
        **described,
        "error": None,
        "width": width,
        "height": height,
        "num_frames": measured.num_frames,
        "mean": {name: _finite(value) for name, value in measured.totals.items()},
        "frames": {name: [*map(_finite, values)] for name, values in measured.frames.items()},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def write_reports(evaluation: Evaluation, paths: Iterable[Path]) -> OutputError | None:
    """Write every report that can be written; return the first error, if any."""
    errors = []
    for path in paths:
        try:
            write_report(evaluation, path)
        except OutputError as error:
            errors.append(error)
    return errors[0] if errors else None


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write JSON, Markdown or HTML, by the file extension."""
    if path.suffix == ".json":
        write_json(path, as_dict(evaluation))
    elif path.suffix == ".md":
        write_text(path, markdown(evaluation) + "\n")
    else:
        from dloral.evaluation.page import page

        write_text(path, page(evaluation))
