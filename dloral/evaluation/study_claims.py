"""What a study's runs say of the paper's claims, and how surely.

Differences of two variants are taken clip by clip and seed by seed; a claim is *seen* where the
difference is in its direction with a p-value, corrected for the number of the study's claims (Holm,
1979), below 0.05. Else there is no difference that these runs show, and beside its interval stands
the smallest one that they would have shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dloral.evaluation.catalogue import METRIC_SPECS
from dloral.evaluation.statistics import (
    Estimate,
    crossed_estimate,
    estimate,
    holm,
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
    """``gain``: how far the claimed one is ahead, in the measure's unit; of swings, how far the
    other's exceed so many times its own. ``p``: corrected. ``visible``: the smallest gain that
    would have been seen four times of five. ``first``, ``second``: the two variants' means."""

    claim: Claim
    metric: str
    first: float
    second: float
    gain: Estimate
    p: float | None
    visible: float | None

    @property
    def words(self) -> str:
        if self.p is None or self.gain.half_width is None:
            return "one run each: no verdict"
        if self.p < SIGNIFICANT and self.gain.mean:
            if self.gain.mean > 0:
                return "**seen**"
            factor = self.claim.swings
            return f"**less than {factor:g} times**" if factor else "**the opposite is seen**"
        return "no difference"


def qualities(found: Found) -> list[str]:
    """The measures that stand for quality: MUSIQ, or those that can be had instead."""
    for names in ((BEST_QUALITY,), OTHER_QUALITY, LAST_RESORT):
        if known := [name for name in names if name in found["metrics"]]:
            return known if names == OTHER_QUALITY else known[:1]
    return []


def verdicts(study: Study, found: Found) -> list[Verdict]:
    """One for every claim and measure that has runs of both variants, in the study's order."""
    open_claims = []
    for claim in study.claims:
        names = qualities(found) if claim.measure == QUALITY else [claim.measure]
        for metric in names:
            one = _compared(found, claim, metric) if metric in found["metrics"] else None
            if one is not None:
                open_claims.append((claim, metric, *one))
    count = len(open_claims)
    corrected = iter(holm([gain.p for *_, gain in open_claims if gain.p is not None]))
    return [
        Verdict(
            claim,
            metric,
            first,
            second,
            gain,
            None if gain.p is None else next(corrected),
            gain.detectable(SIGNIFICANT / count),
        )
        for claim, metric, first, second, gain in open_claims
    ]


def per_seed(found: Found, variant: str, metric: str) -> dict[int, float]:
    """A variant's last figures: seed -> mean over clips."""
    runs = {run["seed"]: run["final"] for run in found["runs"] if run["variant"] == variant}
    return {seed: final[metric] for seed, final in runs.items() if final.get(metric) is not None}


def per_source(found: Found, clips: Mapping[str, Mapping[str, float]], metric: str) -> Any:
    """Source -> mean over the clips that were cut from it."""
    values = {name: one[metric] for name, one in clips.items() if one.get(metric) is not None}
    return source_means(values, {name: found["sources"][name] for name in values})


def swing(found: Found, run: Mapping[str, Any], metric: str) -> list[float]:
    """Of a run's stages (fourths of a study's steps, whatever was trained in them): the largest
    less the smallest measurement, that at the stage's beginning among them. NaN for a stage that
    was not measured at all."""
    length, stages = found["steps"] // found["stages"], []
    for start in range(0, run["steps"], length):
        within = [
            point[metric]
            for point in run["points"]
            if start <= point["step"] <= start + length and point.get(metric) is not None
        ]
        stages.append(max(within) - min(within) if within else float("nan"))
    return stages


def swings(found: Found, variant: str, metric: str) -> dict[int, list[float]]:
    """Seed -> a variant's swings, stage by stage."""
    runs = [run for run in found["runs"] if run["variant"] == variant]
    return {run["seed"]: swing(found, run, metric) for run in runs if run["points"]}


def later_swing(stages: list[float]) -> float:
    """The mean of the stages after the first, in which everything is new to every variant."""
    return float(np.mean(stages[1:] or stages))


def _compared(found: Found, claim: Claim, metric: str) -> tuple[float, float, Estimate] | None:
    """(the claimed one's mean, the other's, how far it is ahead); None without runs of both."""
    if claim.swings:
        first, second = (
            {seed: later_swing(stages) for seed, stages in swings(found, name, metric).items()}
            for name in (claim.better, claim.worse)
        )
        both = sorted(first.keys() & second.keys())
        gain = estimate(second[seed] - claim.swings * first[seed] for seed in both)
    else:
        sign = 1 if METRIC_SPECS[metric].better == "higher" else -1
        clips = {(run["variant"], run["seed"]): run["clips"] for run in found["runs"]}
        first, second = (per_seed(found, name, metric) for name in (claim.better, claim.worse))
        both = sorted(first.keys() & second.keys())
        gains: dict[tuple[int, str], float] = {}
        for seed in both:
            ahead, behind = (
                per_source(found, clips[name, seed], metric) for name in (claim.better, claim.worse)
            )
            gains |= {
                (seed, source): sign * (ahead[source] - behind[source])
                for source in ahead.keys() & behind.keys()
            }
        gain = crossed_estimate(gains)
        if gain is not None and len(both) == 1 and found["kind"] == "training":
            gain = Estimate(gain.mean, None, 1, None)  # one training says nothing of others
    if gain is None:
        return None
    means = [float(np.mean([part[seed] for seed in both])) for part in (first, second)]
    return means[0], means[1], gain
