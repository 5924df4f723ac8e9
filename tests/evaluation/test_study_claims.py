"""What runs say of claims: on figures whose truth is known."""

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest

from dloral.evaluation.studies import STUDIES, Claim
from dloral.evaluation.study_claims import later_swing, swing, verdicts
from dloral.evaluation.study_report import claims_section, spread, swings_section

CLIPS = [str(index) for index in range(6)]


def runs_of(variant: str, level: float, rng: np.random.Generator, seeds: int, spread: float) -> Any:
    runs = []
    for seed in range(seeds):
        # Clips differ more than runs, by orders of magnitude.
        of_clips = np.exp(level + np.arange(6) + rng.normal(0, spread, 6))
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


def order_runs(gap: float, spread: float, seeds: int = 7) -> Any:
    """Of enhancement first and of consistency first, whose warping error is e^gap as high."""
    rng = np.random.default_rng(5)
    runs = runs_of("enhancement-first", 1.0, rng, seeds, spread)
    return found(runs + runs_of("consistency-first", 1.0 + gap, rng, seeds, spread))


def order(gap: float, spread: float, seeds: int = 7) -> Any:
    """Of the claim that enhancement first has the lower warping error."""
    (said,) = verdicts(STUDIES["order"], order_runs(gap, spread, seeds))
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


def test_figures_of_a_trained_model_are_said_to_be_means_over_sources() -> None:
    """As they are: the two clips of one film count once."""
    rng = np.random.default_rng(0)
    measured = found(runs_of("0", 2.0, rng, 1, 0.1) + runs_of("1", 1.0, rng, 1, 0.1))
    measured |= {"kind": "inference", "sources": dict(zip(CLIPS, "aabcde", strict=True))}
    said = next(one for one in verdicts(STUDIES["windows"], measured) if one.claim.better == "1")
    logs = [math.log(clip["warping_error"]) for clip in measured["runs"][1]["clips"].values()]
    assert said.first != pytest.approx(math.exp(np.mean(logs)))
    assert "*Here*: means over sources." in claims_section(STUDIES["windows"], measured)[2]


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


def test_comparisons_that_are_still_missing_count() -> None:
    """Of two planned, the one that has runs is corrected for two, as it will be in the end."""
    rng = np.random.default_rng(0)
    runs = runs_of("C-only", 1.0, rng, 5, 0.3) + runs_of("both", 1.4, rng, 5, 0.3)
    about = found(runs)
    (early,) = verdicts(STUDIES["branches"], about)
    assert early.p == pytest.approx(2 * early.gain.p)
    assert early.visible == early.gain.detectable(0.05 / 2)
    text = "\n".join(claims_section(STUDIES["branches"], about | {"planned_runs": 15}))
    assert "corrected for the study's 2 comparisons" in text
    assert "Not all runs are done" in text
    done = "\n".join(claims_section(STUDIES["branches"], about | {"planned_runs": len(runs)}))
    assert "Not all runs are done" not in done


def test_one_source_gives_no_verdict() -> None:
    """Seven seeds on clips of one film say nothing of other films."""
    about = order_runs(1.0, 0.1)
    about["sources"] = dict.fromkeys(CLIPS, "film")
    (said,) = verdicts(STUDIES["order"], about)
    assert said.words == "one source: no verdict"
    assert (said.p, said.gain.p, said.gain.half_width, said.visible) == (None,) * 4
    assert said.gain.mean == pytest.approx(1.0, abs=0.1)


def test_here_and_ahead_by_are_of_the_same_figures() -> None:
    """Of sources: five clips of the one do not outweigh the one of the other."""
    about = order_runs(0.5, 0.3)
    about["sources"] = {name: "film" if name != "5" else "photo" for name in CLIPS}
    (said,) = verdicts(STUDIES["order"], about)
    assert math.log(said.second / said.first) == pytest.approx(said.gain.mean)
    clips = [run["clips"] for run in about["runs"] if run["variant"] == "enhancement-first"]
    film = np.mean([[one[name]["warping_error"] for name in CLIPS[:5]] for one in clips])
    photo = np.mean([one["5"]["warping_error"] for one in clips])
    assert said.first == pytest.approx(math.sqrt(film * photo), rel=0.05)
    text = "\n".join(claims_section(STUDIES["order"], about))
    assert "over sources and seeds" in text


def test_warping_errors_are_compared_by_ratio() -> None:
    """Their means say the opposite here: one clip in fast motion has a thousand times as much."""
    about = order_runs(0.5, 0.05)
    for run in about["runs"]:
        if run["variant"] == "enhancement-first":
            run["clips"]["5"] = {"warping_error": 1000 * run["clips"]["5"]["warping_error"]}
        else:
            run["clips"]["5"] = {
                "warping_error": 990 * run["clips"]["5"]["warping_error"] / math.exp(0.5)
            }
    (said,) = verdicts(STUDIES["order"], about)
    assert said.by_ratio
    assert said.words == "**seen**"
    assert said.first / said.second == pytest.approx(math.exp(-0.5 * 5 / 6), rel=0.05)
    text = "\n".join(claims_section(STUDIES["order"], about))
    ratio, low, high = (
        float(x) for x in re.search(r"\| x([\d.]+) \(([\d.]+) to ([\d.]+)\) \|", text).groups()
    )
    assert low < ratio < high < 1
    assert ratio == pytest.approx(said.first / said.second, abs=0.006)
    assert "E*warp: geometric means" in text


def test_other_measures_are_compared_by_difference() -> None:
    rng = np.random.default_rng(0)
    runs = [run for v in ("window-0", "window-1") for run in runs_of(v, 1.0, rng, 5, 0.1)]
    for run in runs:
        extra = 0.5 if run["variant"] == "window-0" else 0.0
        for place, one in enumerate(run["clips"].values()):
            one["lpips_like"] = 0.2 + extra + 0.01 * place + rng.normal(0, 0.01)
        run["final"]["lpips_like"] = 0.2 + extra
    claim = Claim("lpips_like", "window-1", "window-0")
    study = dataclasses.replace(STUDIES["windows"], claims=(claim,))
    (said,) = verdicts(study, found(runs, ("lpips_like",)))
    assert not said.by_ratio
    assert said.gain.mean == pytest.approx(0.5, abs=0.02)
    assert said.second - said.first == pytest.approx(said.gain.mean)


@pytest.mark.parametrize("bad", [float("nan"), None])
def test_a_run_that_diverged_is_left_out(bad: float | None) -> None:
    """``study.json`` has null for NaN; the verdict is that of the other seeds, and says so."""
    about = order_runs(1.0, 0.1)
    for run in about["runs"]:
        if (run["variant"], run["seed"]) == ("consistency-first", 3):
            run["clips"] = {name: {"warping_error": bad} for name in CLIPS}
            run["final"] = {"warping_error": bad}
    (said,) = verdicts(STUDIES["order"], about)
    assert said.words == "**seen**"
    assert said.gain.count == 6
    assert np.isfinite([said.first, said.second, said.gain.half_width]).all()
    assert spread("psnr", [30.0, float("nan"), 32.0]) == spread("psnr", [30.0, 32.0])


def test_a_clip_without_a_figure_is_left_out_of_both_variants() -> None:
    """Else a hard clip that one variant lacks would count for it."""
    about = order_runs(1.0, 0.0)
    about["sources"] = {name: "ab"[int(name) % 2] for name in CLIPS}
    for run in about["runs"]:
        if run["variant"] == "consistency-first":
            run["clips"]["5"] = {"warping_error": float("nan")}
    (said,) = verdicts(STUDIES["order"], about)
    assert said.gain.mean == pytest.approx(1.0)


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


def test_swings_of_stages_that_were_not_measured_are_left_out() -> None:
    runs = [see_saw(name, 0.9, seed) for name in ("alternating", "dual") for seed in range(5)]
    for run in runs:
        if run["seed"] == 0:  # measured in no stage but the first two; later points diverged
            run["points"] = [p for p in run["points"] if p["step"] <= 8]
            run["points"] += [{"step": 15, "warping_error": float("nan")}]
    about = found(runs)
    assert np.isnan(swing(about, runs[0], "warping_error")[3])
    assert later_swing([1.0, 2.0, float("nan"), 4.0]) == 3.0
    assert np.isnan(later_swing([1.0, float("nan")]))
    (said,) = verdicts(STUDIES["strategies"], about)
    assert np.isfinite([said.first, said.second, said.gain.mean, said.gain.half_width]).all()
    text = "\n".join(swings_section(STUDIES["strategies"], about))
    assert "nan" not in text
    claims = "\n".join(claims_section(STUDIES["strategies"], about))
    assert "swing within a stage, over seeds alone" in claims
