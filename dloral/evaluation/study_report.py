"""A study's outcome: Markdown with the paper's numbers alongside, curves, a sheet, JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import exp
from pathlib import Path
from typing import Any

from dloral.evaluation.catalogue import METRIC_SPECS
from dloral.evaluation.published import COLUMNS
from dloral.evaluation.report import arrow, explained, number, row
from dloral.evaluation.statistics import LEVEL, estimate, is_finite
from dloral.evaluation.studies import Study, Variant
from dloral.evaluation.study_claims import (
    BEST_QUALITY,
    SIGNIFICANT,
    Verdict,
    comparisons,
    later_swing,
    per_seed,
    qualities,
    swings,
    verdicts,
)
from dloral.evaluation.study_figures import draw_curves, draw_sheet
from dloral.evaluation.study_measuring import means
from dloral.evaluation.study_plan import duration, steps_of
from dloral.files import write_json, write_text

Found = Mapping[str, Any]
EXCESS = "warping_error"
"""Also shown less the truth's own: motion that no estimate follows makes it more than 0."""


def write_study(study: Study, found: dict[str, Any], out: Path, command: str) -> Path:
    """Write ``OUT/study.json``, ``README.md``, ``curves.png`` and ``sheet.jpg``, the pictures only
    if there is something to draw; returns the README.

    ``found``: from the finished runs, whether all of them or not.
    """
    write_json(out / "study.json", {**found, "command": command})
    training = found["kind"] == "training"
    pictures = []
    if training and draw_curves(study, found, out / "curves.png"):
        pictures.append("![Quality and warping error over the steps](curves.png)")
    if draw_sheet(study, found, out):
        pictures.append("![The same crops by every variant](sheet.jpg)")
    parts = [f"# {study.title}", f"    {command}", _about(study, found), table(study, found)]
    parts += claims_section(study, found)
    if training:
        parts += [*swings_section(study, found), *windows_section(study, found)]
    parts += [study.note, *pictures]
    lines = [f"NOT AVAILABLE {name}: {why}" for name, why in found["unavailable"].items()]
    lines += [f"NOT MEASURED {name}: {why}" for name, why in found.get("failed", {}).items()]
    lines += left_out(study, found)
    lines += [explained(METRIC_SPECS[name]) for name in found["metrics"]]
    lines += [f"- {name}: {text}" for name, text in found.get("conditions", {}).items()]
    text = "\n\n".join(part for part in (*parts, "\n".join(lines)) if part)
    write_text(out / "README.md", text + "\n")
    return out / "README.md"


def _about(study: Study, found: Found) -> str:
    if found["kind"] == "inference":
        return (
            f"One trained model, its switches at inference; mean over {found['num_clips']} clips. "
            "The paper trains each row from scratch."
        )
    done, planned = len(found["runs"]), found["planned_runs"]
    whole = f"{planned} runs" if done == planned else f"**{done} of {planned} runs**"
    clips = f"{found['num_clips']} held-out clip{'s' * (found['num_clips'] > 1)}"
    seconds = sum(run["seconds"] for run in found["runs"])
    shorter = [v for v in study.variants if steps_of(v, found["steps"]) != found["steps"]]
    alone = (
        f" ({' and '.join(v.title for v in shorter)}: "
        f"{steps_of(shorter[0], found['steps'])}, as many of their own stage as the others)"
        if shorter
        else ""
    )
    return (
        f"{whole}: {len(found['seeds'])} seeds of each variant, {found['steps']} steps{alone}, "
        f"{found['stages']} stages of {found['steps'] // found['stages']}; {clips} of "
        f"{found['num_frames']} frames. ± is the {LEVEL:.0%} interval of "
        f"Student's t over seeds. {duration(seconds)} of training and measuring."
    )


def left_out(study: Study, found: Found) -> list[str]:
    """Runs with figures that are not finite, which count in no mean and no claim."""
    lines = []
    for run in found["runs"]:
        names = [name for name, value in run["final"].items() if not is_finite(value)]
        if names:
            titles = ", ".join(METRIC_SPECS[name].title for name in names)
            which = study.titles[run["variant"]]
            which += f", seed {run['seed']}" if found["kind"] == "training" else ""
            lines.append(f"LEFT OUT {which}: {titles}: not finite")
    return lines


# Tables ------------------------------------------------------------------------------------------


def table(study: Study, found: Found) -> str:
    """Means over clips and seeds with their intervals; the paper's numbers to the right."""
    metrics, paper = list(found["metrics"]), COLUMNS if study.published else ()
    truth = means(found.get("truth", {}))
    excess = EXCESS in truth
    heads = ["", *(f"{METRIC_SPECS[name].title} {arrow(METRIC_SPECS[name])}" for name in metrics)]
    heads += [f"{METRIC_SPECS[EXCESS].title} less the truth's"] if excess else []
    heads += [f"paper: {METRIC_SPECS[name].title}" for name in paper]
    lines = [row(heads), row(["---"] * len(heads))]
    for variant in study.variants:
        figures = {name: per_seed(found, variant.name, name).values() for name in metrics}
        cells = [spread(name, values) for name, values in figures.items()]
        if excess:
            cells.append(spread(EXCESS, (v - truth[EXCESS] for v in figures[EXCESS])))
        known = study.published.get(variant.name, ())
        lines.append(row([variant.title, *cells, *(f"{value:g}" for value in known)]))
    if truth:
        cells = [number(METRIC_SPECS[name], truth.get(name)) for name in metrics]
        cells += [number(METRIC_SPECS[EXCESS], 0.0)] if excess else []
        lines.append(row(["*the truth*", *cells, *[""] * len(paper)]))
    return "\n".join(lines)


def spread(metric: str, values: Iterable[float]) -> str:
    """A mean and its interval, as printed."""
    spec, found = METRIC_SPECS[metric], estimate(values)
    if found is None:
        return "–"
    mean = number(spec, found.mean)
    return mean if found.half_width is None else f"{mean} ± {number(spec, found.half_width)}"


def claims_section(study: Study, found: Found) -> list[str]:
    """Whether each ordering that the paper claims is seen here, and how surely."""
    said = verdicts(study, found)
    if not said:
        return []
    heads = ["the paper has", "by", "here", f"ahead by ({LEVEL:.0%})", "p", "would be seen from"]
    lines = [row([*heads, ""]), row(["---"] * 7)]
    lines += [row(_cells(study, one)) for one in said]
    names = qualities(found)
    quality = " and ".join(METRIC_SPECS[name].title for name in names)
    over = "sources and seeds" if found["kind"] == "training" else "sources"
    tests = len(comparisons(study, found))
    ratios = sorted({METRIC_SPECS[one.metric].title for one in said if one.by_ratio})
    explanation = [
        f"*Here*: means over {over}. *Ahead by*: the mean difference of the same figures, paired, "
        "above 0 in the paper's direction.",
        f"{' and '.join(ratios)}: geometric means, and the first variant's share of the other's, "
        "below 1 in the paper's direction, since clips differ by orders of magnitude."
        if ratios
        else "",
        "Swings are of the mean over clips: *here* and *ahead by* are over seeds alone."
        if any(one.claim.swings for one in said)
        else "",
        f"*p*: t test, corrected for the study's {tests} comparisons (Holm); *seen* is said below "
        f"{SIGNIFICANT:g}. *Would be seen from*: the smallest true difference that these runs, "
        "with the spread they have, would show four times of five.",
        f"Quality is {quality} here; the paper's is MUSIQ." if BEST_QUALITY not in names else "",
        "Not all runs are done: a p-value holds for the whole study, not for a look on the way."
        if found.get("planned_runs", len(found["runs"])) != len(found["runs"])
        else "",
    ]
    return [
        "## The paper's claims",
        "\n".join(lines),
        " ".join(sentence for sentence in explanation if sentence),
    ]


def _cells(study: Study, said: Verdict) -> list[str]:
    spec, titles, gain = METRIC_SPECS[said.metric], study.titles, said.gain
    better, worse = titles[said.claim.better], titles[said.claim.worse]
    claim, by = f"{better} ahead of {worse}", spec.title
    if said.claim.swings:
        claim = f"{worse} swings at least {said.claim.swings:g} times as far as {better}"
        by = f"{spec.title}, swing within a stage, over seeds alone"

    def printed(value: float | None) -> str:
        if not said.by_ratio or value is None:
            return number(spec, value)
        return f"x{exp(-value if spec.better == 'lower' else value):.2f}"

    ahead = printed(gain.mean)
    if gain.half_width is not None:
        ends = [gain.mean - gain.half_width, gain.mean + gain.half_width]
        ends.sort(reverse=said.by_ratio and spec.better == "lower")  # smaller number first
        low, high = (printed(end).removeprefix("x") for end in ends)
        ahead += f" ({low} to {high})"
    p = "–" if said.p is None else "< 0.001" if said.p < 0.001 else f"{said.p:.3f}"
    here = f"{number(spec, said.first)} against {number(spec, said.second)}"
    return [claim, by, here, ahead, p, printed(said.visible), said.words]


def swings_section(study: Study, found: Found) -> list[str]:
    """How far quality and warping error swing within the stages, for studies that compare it."""
    if not any(claim.swings for claim in study.claims):
        return []
    names = [n for n in (*qualities(found)[:1], "warping_error") if n in found["metrics"]]
    stages = [f"stage {number + 1}" for number in range(found["stages"])]
    lines = [row(["", "swing of", *stages, "after the first"]), row(["---"] * (len(stages) + 3))]
    for name in names:
        for variant in study.variants:
            by_seed = swings(found, variant.name, name).values()
            cells = [spread(name, values) for values in zip(*by_seed, strict=True)]
            if cells:
                cells.append(spread(name, map(later_swing, by_seed)))
                lines.append(row([variant.title, METRIC_SPECS[name].title, *cells]))
    return [
        "## How far they swing within a stage",
        "\n".join(lines),
        "The largest less the smallest of a stage's measurements (the one at its beginning too), "
        "of the mean over clips. Joint training has no stages: fourths of its steps.",
    ]


def windows_section(study: Study, found: Found) -> list[str]:
    """Models trained with one window, restored with each of the windows."""
    if not study.windows:
        return []
    parts = ["## Trained with one window, restored with another"]
    for name in (*qualities(found), "warping_error"):
        if name not in found["metrics"]:
            continue
        heads = [f"{METRIC_SPECS[name].title} {arrow(METRIC_SPECS[name])}"]
        heads += [f"restored with {window}" for window in study.windows]
        lines = [row(heads), row(["---"] * len(heads))]
        for variant in study.variants:
            cells = [spread(name, _with(found, variant, w, name)) for w in study.windows]
            lines.append(row([f"trained with {variant.title}", *cells]))
        parts.append("\n".join(lines))
    return parts


def _with(found: Found, variant: Variant, window: int, name: str) -> list[float]:
    runs = [run["windows"] for run in found["runs"] if run["variant"] == variant.name]
    finals = [means(one[str(window)]) for one in runs if str(window) in one]
    return [final[name] for final in finals if name in final]
