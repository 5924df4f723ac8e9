"""The report as one self-contained HTML page: tables, curves and pictures."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray
from PIL import Image

from dloral.evaluation.evaluate import ClipResult, Evaluation
from dloral.evaluation.measures import MetricSpec
from dloral.evaluation.report import arrow, conditions, number

TEMPLATE = "page.html.j2"
MOST_POINTS = 400
"""Points of a curve; a longer clip's are averaged, since no screen shows more."""

WIDEST = 640
TALL = 160
JPEG_QUALITY = 85
PLOT = (320, 120)
"""Width and height of a curve's drawing area, in its own units."""


@dataclass(frozen=True)
class Curve:
    """A measure over a clip's frames: ``lines`` are SVG polylines, broken at missing values."""

    spec: MetricSpec
    mean: str
    low: str
    high: str
    last_frame: int
    mean_height: float
    lines: tuple[str, ...]


def template(name: str) -> Template:
    """A template from this folder; text is escaped, unknown names are errors."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def page(evaluation: Evaluation) -> str:
    """The whole page."""
    measured = [result for result in evaluation.results if not result.error]
    return template(TEMPLATE).render(
        specs=evaluation.specs,
        arrow=arrow,
        number=number,
        plot=PLOT,
        totals=evaluation.totals,
        measured=[(result, result.measured.totals) for result in measured],
        best=_best(evaluation.specs, measured),
        details=[_details(result, evaluation.specs) for result in measured],
        failed=[result for result in evaluation.results if result.error],
        unavailable=evaluation.unavailable,
        conditions=conditions(evaluation),
        num_frames=sum(result.measured.num_frames for result in measured),
    )


def _best(specs: tuple[MetricSpec, ...], measured: list[ClipResult]) -> dict[str, str]:
    """The clip with the best figure for each measure, where there is more than one clip."""
    found = {}
    for spec in specs:
        values = {r.pair.name: r.measured.totals.get(spec.name) for r in measured}
        known = {name: value for name, value in values.items() if value is not None}
        if len(known) > 1:
            badness = {name: spec.badness(value) for name, value in known.items()}
            found[spec.name] = min(badness, key=lambda name: badness[name])
    return found


def _details(result: ClipResult, specs: tuple[MetricSpec, ...]) -> dict[str, object]:
    height, width = result.size or (0, 0)
    return {
        "name": result.pair.name,
        "about": f"{width} x {height}, {result.measured.num_frames} frames",
        "frames": {name: _jpeg(picture) for name, picture in result.frames.items()},
        "profiles": {name: _jpeg(_tall(p)) for name, p in result.profile.pictures().items()},
        "curves": [
            curve(spec, result.measured.frames.get(spec.name, []))
            for spec in specs
            if sum(v is not None for v in result.measured.frames.get(spec.name, [])) > 1
        ],
    }


def curve(spec: MetricSpec, values: list[float | None]) -> Curve:
    """A measure's per-frame values as SVG lines; at least two must be known."""
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    span = high - low or 1.0
    bins = min(len(values), MOST_POINTS)
    edges = np.linspace(0, len(values), bins + 1).astype(int)
    lines: list[list[str]] = [[]]
    every = max(1, len(values) // len(known))  # a slow measure looks at every Nth frame: no break
    missing = 0
    for start, end in pairwise(edges):
        inside = [value for value in values[start:end] if value is not None]
        if not inside:
            missing += 1
            if missing >= 2 * every and lines[-1]:
                lines.append([])
            continue
        missing = 0
        x = PLOT[0] * (start + end - 1) / 2 / max(len(values) - 1, 1)
        y = PLOT[1] * (1 - (sum(inside) / len(inside) - low) / span)
        lines[-1].append(f"{x:.1f},{y:.1f}")
    mean = sum(known) / len(known)
    return Curve(
        spec,
        number(spec, mean),
        number(spec, low),
        number(spec, high),
        len(values) - 1,
        PLOT[1] * (1 - (mean - low) / span),
        tuple(" ".join(line) for line in lines if line),
    )


def _tall(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A short clip's profile with every row repeated, so that it is tall enough to see."""
    return np.repeat(rows, max(1, TALL // len(rows)), axis=0)


def _jpeg(picture: NDArray[np.uint8]) -> str:
    """A data URL of (H,W,3), scaled down where it is wide."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.width > WIDEST:
        image = image.resize((WIDEST, max(1, round(image.height * WIDEST / image.width))))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
