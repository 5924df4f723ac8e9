"""What was measured, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dloral.errors import OutputError
from dloral.evaluation.evaluate import ClipResult, Evaluation
from dloral.evaluation.measures import Card

FORMAT = 1


def markdown(evaluation: Evaluation) -> str:
    """A table, a row a clip and their mean, what went wrong, and what each figure means."""
    cards = evaluation.cards
    measured = [result for result in evaluation.results if not result.error]
    heads = ["clip", "frames", *(f"{card.title} {arrow(card)}" for card in cards)]
    rows = [
        [result.pair.name, str(result.measured.num_frames)]
        + [number(card, result.measured.totals.get(card.name)) for card in cards]
        for result in measured
    ]
    if len(measured) > 1:
        totals = evaluation.totals
        frames = sum(result.measured.num_frames for result in measured)
        mean = [number(card, totals.get(card.name)) for card in cards]
        rows.append([f"mean of {len(measured)}", str(frames), *mean])
    lines = [row(heads), row(["---"] * len(heads)), *map(row, rows)] if rows else []
    lines += [""] if lines else []
    lines += [f"NOT MEASURED {r.pair.name}: {r.error}" for r in evaluation.results if r.error]
    lines += [f"NOT AVAILABLE {name}: {why}" for name, why in evaluation.unavailable.items()]
    lines += [explained(card) for card in cards] if rows else []
    lines += [f"- {name}: {text}" for name, text in conditions(evaluation).items()]
    return "\n".join(lines)


def row(cells: list[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def arrow(card: Card) -> str:
    """Which way is better, for the head of a column."""
    return "↑" if card.better == "higher" else "↓"


def number(card: Card, value: float | None) -> str:
    """A figure as it is printed."""
    return "–" if value is None or math.isnan(value) else f"{value:.{card.digits}f}"


def explained(card: Card) -> str:
    """A card as one line."""
    unit = f" ({card.unit})" if card.unit else ""
    return (
        f"- {card.title}{unit}, {card.better} is better, {card.span}: {card.definition} "
        f"[{card.source}]"
    )


def conditions(evaluation: Evaluation) -> dict[str, str]:
    """What the figures depend on beyond their cards, each once."""
    found: dict[str, str] = {}
    for result in evaluation.results:
        for name, text in result.measured.conditions.items():
            known = found.get(name, text)
            found[name] = known if text in known else f"{known}; {text}"
    if evaluation.settings.every > 1 and any(card.slow for card in evaluation.cards):
        slow = ", ".join(card.title for card in evaluation.cards if card.slow)
        found["every"] = f"{slow} on every {evaluation.settings.every}th frame"
    return found


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The report as JSON has it; figures that there are none of are null."""
    return {
        "format": FORMAT,
        "measures": {
            card.name: {
                "title": card.title,
                "unit": card.unit,
                "range": card.span,
                "better": card.better,
                "compares_with": card.scope,
                "definition": card.definition,
                "source": card.source,
            }
            for card in evaluation.cards
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


def write_text(path: Path, text: str) -> None:
    """Whole or not at all; :class:`OutputError` where it cannot be."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
        ) from error


def write_reports(evaluation: Evaluation, paths: Iterable[Path]) -> OutputError | None:
    """Every report that can be written; the first error, for one must not cost the others."""
    errors = []
    for path in paths:
        try:
            write_report(evaluation, path)
        except OutputError as error:
            errors.append(error)
    return errors[0] if errors else None


def write_report(evaluation: Evaluation, path: Path) -> None:
    """JSON, Markdown or HTML by the name's ending."""
    if path.suffix == ".json":
        write_text(path, json.dumps(as_dict(evaluation), indent=1, allow_nan=False) + "\n")
    elif path.suffix == ".md":
        write_text(path, markdown(evaluation) + "\n")
    else:
        from dloral.evaluation.page import page

        write_text(path, page(evaluation))
