"""What a study's runs say about the paper's claims, and how surely.

Two variants are compared clip by clip and seed by seed, by ratios for a measure that asks for them
(E*warp) and by differences for the rest; a claim is *seen* where the gain is in its direction with
a p-value, corrected for the number of comparisons that the study plans (Holm, 1979), below 0.05.
Otherwise these runs show no difference, and the smallest one that they would have shown is given
beside the interval. One training each, or clips from a single source, do not generalise: they give
no verdict. A swing has no per-clip figure, so its interval is over seeds alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Any, NamedTuple

import numpy as np

from dloral.evaluation.catalogue import METRIC_SPECS
from dloral.evaluation.statistics import (
    Estimate,
    complete,
    crossed_estimate,
    estimate,
    holm,
    is_finite,
    source_means,
)
from dloral.evaluation.studies import QUALITY, Claim, Study

SIGNIFICANT = 0.05
BEST_QUALITY = "musiq"
"""The paper's measure of quality; where it cannot be had, all of OTHER_QUALITY stand for it."""

OTHER_QUALITY = ("lpips_like", "niqe")
LAST_RESORT = ("psnr", "ssim")

Found = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """``gain``: how far the claimed variant is ahead, in the measure's unit, or with ``by_ratio``
    the natural logarithm of the other's figure over its own; for swings, how far the other's exceed
    the claimed multiple of its own. ``first``, ``second``: the two variants' means, over the same
    seeds and sources, geometric with ``by_ratio``. ``p``: corrected. ``visible``: the smallest gain
    that would be seen four times out of five. ``lacking``: why there is no p, else empty."""

    claim: Claim
    metric: str
    first: float
    second: float
    gain: Estimate
    lacking: str
    p: float | None
    visible: float | None

    @property
    def by_ratio(self) -> bool:
        """Whether the variants are compared by the ratio of their figures."""
        return _by_ratio(self.claim, self.metric)

    @property
    def words(self) -> str:
        if self.p is None:
            return f"{self.lacking}: no verdict"
        if self.p < SIGNIFICANT and self.gain.mean:
            if self.gain.mean > 0:
                return "**seen**"
            factor = self.claim.swings
            return f"**less than {factor:g} times**" if factor else "**the opposite is seen**"
        return "no difference"


def qualities(found: Found) -> list[str]:
    """The measures that stand for quality: MUSIQ, or those available instead."""
    for names in ((BEST_QUALITY,), OTHER_QUALITY, LAST_RESORT):
        if known := [name for name in names if name in found["metrics"]]:
            return known if names == OTHER_QUALITY else known[:1]
    return []


def comparisons(study: Study, found: Found) -> list[tuple[Claim, str]]:
    """Every claim with every measure it is tested by, whether it has runs yet or not."""
    return [
        (claim, metric)
        for claim in study.claims
        for metric in (qualities(found) if claim.measure == QUALITY else [claim.measure])
        if metric in found["metrics"]
    ]


def verdicts(study: Study, found: Found) -> list[Verdict]:
    """One for every comparison that has runs of both variants, in the study's order."""
    planned = comparisons(study, found)
    compared = [_compared(found, claim, metric) for claim, metric in planned]
    # A missing p counts as 1: otherwise the first claims to have runs would be judged less
    # strictly than once the study is complete.
    chances = [one.gain.p if one is not None else None for one in compared]
    corrected = holm([1.0 if p is None else p for p in chances])
    return [
        Verdict(
            claim,
            metric,
            *one,
            p=None if one.gain.p is None else p,
            visible=one.gain.detectable(SIGNIFICANT / len(planned)),
        )
        for (claim, metric), one, p in zip(planned, compared, corrected, strict=True)
        if one is not None
    ]


def per_seed(found: Found, variant: str, metric: str) -> dict[int, float]:
    """A variant's last figures: seed -> mean over clips."""
    runs = {run["seed"]: run["final"] for run in found["runs"] if run["variant"] == variant}
    return {seed: final[metric] for seed, final in runs.items() if is_finite(final.get(metric))}


def swing(found: Found, run: Mapping[str, Any], metric: str) -> list[float]:
    """For each of a run's stages (quarters of a study's steps, whatever was trained in them), the
    largest minus the smallest finite measurement, including the one at the stage's beginning. NaN
    for a stage without any."""
    length, stages = found["steps"] // found["stages"], []
    for start in range(0, run["steps"], length):
        within = [
            point[metric]
            for point in run["points"]
            if start <= point["step"] <= start + length and is_finite(point.get(metric))
        ]
        stages.append(max(within) - min(within) if within else float("nan"))
    return stages


def swings(found: Found, variant: str, metric: str) -> dict[int, list[float]]:
    """Seed -> a variant's swings, stage by stage."""
    runs = [run for run in found["runs"] if run["variant"] == variant]
    return {run["seed"]: swing(found, run, metric) for run in runs if run["points"]}


def later_swing(stages: list[float]) -> float:
    """The mean over the measured stages after the first, in which everything is new to every
    variant; NaN where none was measured."""
    known = [stage for stage in stages[1:] or stages if is_finite(stage)]
    return float(np.mean(known)) if known else float("nan")


class _Compared(NamedTuple):
    """The claimed variant's mean, the other's, the gain, and why there is no p, else empty."""

    first: float
    second: float
    gain: Estimate
    lacking: str


def _compared(found: Found, claim: Claim, metric: str) -> _Compared | None:
    """The comparison for a claim; None without runs of both variants."""
    return (_swings_compared if claim.swings else _finals_compared)(found, claim, metric)


def _swings_compared(found: Found, claim: Claim, metric: str) -> _Compared | None:
    """Compared seed by seed."""
    first, second = (
        {seed: later_swing(stages) for seed, stages in swings(found, name, metric).items()}
        for name in (claim.better, claim.worse)
    )
    both = [
        (first[seed], second[seed])
        for seed in sorted(first.keys() & second.keys())
        if is_finite(first[seed]) and is_finite(second[seed])
    ]
    gain = estimate(theirs - claim.swings * ours for ours, theirs in both)
    if gain is None:
        return None
    return _Compared(*_means(both), gain, "one run each" if gain.p is None else "")


def _finals_compared(found: Found, claim: Claim, metric: str) -> _Compared | None:
    """Compared source by source and seed by seed."""
    sign = 1 if METRIC_SPECS[metric].better == "higher" else -1
    figures = _paired_figures(found, claim, metric)
    ratio = _by_ratio(claim, metric)
    if ratio:
        figures = {p: (log(a), log(b)) for p, (a, b) in figures.items() if a > 0 and b > 0}
    gains = complete({place: sign * (ours - theirs) for place, (ours, theirs) in figures.items()})
    gain = crossed_estimate(gains)
    if gain is None:
        return None
    lacking = ""
    if found["kind"] == "training" and len({seed for seed, _ in gains}) == 1:
        lacking = "one run each"
    elif len({source for _, source in gains}) == 1:
        lacking = "one source"
    if lacking:
        gain = Estimate(gain.mean, None, 1, None)  # a single one does not generalise
    first, second = _means([figures[place] for place in gains])
    return _Compared(*((exp(first), exp(second)) if ratio else (first, second)), gain, lacking)


def _by_ratio(claim: Claim, metric: str) -> bool:
    """Swings are of means over clips, which do not differ by orders of magnitude."""
    return METRIC_SPECS[metric].by_ratio and not claim.swings


def _paired_figures(
    found: Found, claim: Claim, metric: str
) -> dict[tuple[int, str], tuple[float, float]]:
    """(seed, source) -> the claimed variant's figure and the other's: means over the source's
    clips that both have, so that a clip missing from one counts for neither."""
    clips = {(run["variant"], run["seed"]): run["clips"] for run in found["runs"]}
    figures: dict[tuple[int, str], tuple[float, float]] = {}
    for seed in sorted({seed for _, seed in clips}):
        ours, theirs = (
            {
                clip: one[metric]
                for clip, one in clips.get((name, seed), {}).items()
                if is_finite(one.get(metric))
            }
            for name in (claim.better, claim.worse)
        )
        sources = {clip: found["sources"][clip] for clip in ours if clip in theirs}
        first, second = (
            source_means({clip: values[clip] for clip in sources}, sources)
            for values in (ours, theirs)
        )
        figures |= {(seed, source): (first[source], second[source]) for source in first}
    return figures


def _means(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    first, second = zip(*pairs, strict=True)
    return float(np.mean(first)), float(np.mean(second))
