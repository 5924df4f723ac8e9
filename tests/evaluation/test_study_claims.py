"""What runs say of claims: on figures whose truth is known."""

from typing import Any

import numpy as np
import pytest

from dloral.evaluation.studies import STUDIES, Claim
from dloral.evaluation.study_claims import swing, verdicts

CLIPS = [str(index) for index in range(6)]


def runs_of(variant: str, level: float, rng: np.random.Generator, seeds: int, spread: float) -> Any:
    runs = []
    for seed in range(seeds):
        of_clips = level + np.arange(6) + rng.normal(0, spread, 6)  # clips differ more than runs
        clips = {name: {"warping_error": float(v)} for name, v in zip(CLIPS, of_clips, strict=True)}
        final = {"warping_error": float(of_clips.mean())}
        run = {"variant": variant, "seed": seed, "clips": clips, "final": final, "points": []}
        runs.append(run | {"steps": 16})
    return runs


def found(runs: list[Any], metrics: tuple[str, ...] = ("warping_error",)) -> dict[str, Any]:
    return {
        "kind": "training",
        "metrics": list(metrics),
        "runs": runs,
        "steps": 16,
        "stages": 4,
        "sources": dict(zip(CLIPS, CLIPS, strict=True)),
    }


def order(gap: float, spread: float, seeds: int = 7) -> Any:
    """Of the claim that enhancement first has the lower warping error."""
    rng = np.random.default_rng(5)
    runs = runs_of("enhancement-first", 1.0, rng, seeds, spread)
    (said,) = verdicts(
        STUDIES["order"], found(runs + runs_of("consistency-first", 1.0 + gap, rng, seeds, spread))
    )
    return said


def test_a_difference_is_seen_in_its_direction_alone() -> None:
    assert order(1.0, 0.1).words == "**seen**"
    assert order(-1.0, 0.1).words == "**the opposite is seen**"
    assert order(1.0, 0.1).gain.mean == pytest.approx(1.0, abs=0.1)


def test_what_is_not_seen_comes_with_what_would_have_been() -> None:
    """A gap as large as the one that would be seen four times of five: about so often."""
    said = order(0.0, 1.0)
    assert said.words == "no difference"
    assert said.gain.mean - said.gain.half_width < 0 < said.gain.mean + said.gain.half_width
    assert 0.3 < said.visible < 3
    assert order(2 * said.visible, 1.0).words == "**seen**"


def test_one_run_each_gives_no_verdict() -> None:
    assert order(1.0, 0.1, seeds=1).words == "one run each: no verdict"


def test_the_number_of_claims_counts() -> None:
    """Each p-value is corrected, and so is the difference that would be seen."""
    rng = np.random.default_rng(0)
    levels = {"C-only": 1.0, "both": 1.1, "D-only": 1.2}
    runs = [run for v, level in levels.items() for run in runs_of(v, level, rng, 5, 0.3)]
    said = verdicts(STUDIES["branches"], found(runs))
    assert [one.claim.measure for one in said] == ["warping_error"] * 2
    raw = [one.gain.p for one in said]
    assert [one.p for one in said] == pytest.approx(_holm_of_two(raw))
    assert said[0].visible > said[0].gain.detectable(0.05)


def _holm_of_two(raw: list[float]) -> list[float]:
    low, high = sorted(raw)
    corrected = {low: min(1, 2 * low), high: min(1, max(2 * low, high))}
    return [corrected[p] for p in raw]


def see_saw(variant: str, height: float, seed: int) -> Any:
    """Up in one stage and down in the next, four measurements each; the first stage falls."""
    rng, quarter = np.random.default_rng(seed), np.linspace(0.25, 1, 4)
    values = np.concatenate([3 - quarter, 2 + height * quarter, 2 + height * (1 - quarter)])
    values = np.concatenate([values, 2 + height * quarter]) + rng.normal(0, 0.01, 16)
    points = [{"step": i + 1, "warping_error": float(v)} for i, v in enumerate(values)]
    final = {"warping_error": float(values[-1])}
    clips = dict.fromkeys(CLIPS, final)
    return {
        "variant": variant, "seed": seed, "steps": 16, "points": points, "final": final,
        "clips": clips,
    }  # fmt: skip


@pytest.mark.parametrize(("height", "words"), [(0.9, "**seen**"), (0.3, "**less than 2 times**")])
def test_swings_twice_as_far(height: float, words: str) -> None:
    """0.9 is three times 0.3, so twice as far is seen; 0.3 is once."""
    runs = [see_saw("alternating", height, seed) for seed in range(5)]
    runs += [see_saw("dual", 0.3, seed) for seed in range(5)]
    (said,) = verdicts(STUDIES["strategies"], found(runs))
    assert said.claim == Claim("warping_error", "dual", "alternating", swings=2.0)
    assert said.second == pytest.approx(height, abs=0.05)
    assert said.first == pytest.approx(0.3, abs=0.05)
    assert said.words == words
    stages = swing(found(runs), runs[0], "warping_error")
    assert stages == pytest.approx([0.75, height, height, height], abs=0.05)
