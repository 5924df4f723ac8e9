"""Intervals and paired differences, against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from dloral.evaluation.statistics import (
    Estimate,
    crossed_estimate,
    estimate,
    holm,
    paired_difference,
    paired_ratio,
    source_means,
    t_quantile,
    t_tail,
)


@pytest.mark.parametrize("degrees", [1, 2, 7, 200])
def test_students_t(degrees: int) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)
    for t in (0.0, 0.3, 2.5, 40.0):
        assert t_tail(t, degrees) == pytest.approx(stats.t.sf(t, degrees), rel=1e-9)


def test_a_mean_with_its_interval() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, 9)
    found = estimate(values)
    expected = stats.ttest_1samp(values, 0)
    low, high = expected.confidence_interval(0.95)
    assert found.mean == pytest.approx(values.mean())
    assert found.half_width == pytest.approx((high - low) / 2)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.count, estimate([3.0]).half_width, estimate([])) == (9, None, None)
    assert estimate([2.0, 2.0]).p == 0.0
    assert estimate([0.0, 0.0]).p == 1.0


NONE = float("nan")
ENDLESS = float("inf")


def test_what_is_not_finite_is_left_out() -> None:
    """A diverged run's NaN costs itself alone: no endless search for a quantile, no NaN mean."""
    assert estimate([1.0, NONE, 2.0, ENDLESS]) == estimate([1.0, 2.0])
    assert estimate([NONE, -ENDLESS]) is None
    first = {"a": 1.0, "b": NONE, "c": 3.5}
    assert paired_difference(first, {"a": 0.5, "b": 1.0, "c": 2.0}).count == 2
    table = draws(np.random.default_rng(1), (1, 1, 1))
    holed = table.copy()
    holed[2] = NONE  # a seed that diverged
    assert crossed(holed).mean == pytest.approx(np.delete(table, 2, axis=0).mean())
    holed = table.copy()
    holed[2, 3] = NONE  # one clip of it: its source is left out of every seed
    assert crossed(holed).mean == pytest.approx(np.delete(table, 3, axis=1).mean())


def test_clips_of_a_source_count_once() -> None:
    sources = {"a1": "a", "a2": "a", "a3": "a", "b1": "b"}
    means = source_means({"a1": 1.0, "a2": 2.0, "a3": 6.0, "b1": 10.0}, sources)
    assert means == {"a": 3.0, "b": 10.0}
    assert estimate(means.values()).mean == 6.5


def test_differences_are_paired() -> None:
    """The spread between sources is not the spread of the difference."""
    first = {"a": 10.5, "b": 20.6, "c": 30.4, "d": 99.0}
    second = {"a": 10.0, "b": 20.0, "c": 30.0}
    found = paired_difference(first, second)
    expected = stats.ttest_rel([10.5, 20.6, 30.4], [10.0, 20.0, 30.0])
    assert (found.mean, found.count) == (pytest.approx(0.5), 3)
    assert found.p == pytest.approx(expected.pvalue)


def test_a_ratio_is_of_geometric_means() -> None:
    """So that no source counts for its size; one without anything has no ratio."""
    first = {"a": 1.0, "b": 40.0, "c": 0.3, "d": 0.0}
    second = {"a": 2.0, "b": 10.0, "c": 0.6, "d": 1.0}
    found = paired_ratio(first, second)
    logs = np.log([0.5, 4.0, 0.5])
    assert (found.mean, found.count) == (pytest.approx(logs.mean()), 3)
    assert found.p == pytest.approx(stats.ttest_1samp(logs, 0).pvalue)
    assert paired_ratio({"a": 0.0}, {"a": 1.0}) is None


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def draws(rng: np.random.Generator, spreads: tuple[float, float, float]) -> np.ndarray:
    """Differences of 5 seeds and 6 sources: what is a seed's, a source's, and neither's own."""
    of_seed, of_source, rest = spreads
    table = rng.normal(0, 1, (5, 1)) * of_seed + rng.normal(0, 1, (1, 6)) * of_source
    return table + rng.normal(0, rest, (5, 6))


def crossed(table: np.ndarray) -> Estimate:
    found = crossed_estimate(
        {(seed, str(name)): value for (seed, name), value in np.ndenumerate(table)}
    )
    assert found is not None
    return found


@pytest.mark.parametrize("spreads", [(1, 0, 1), (0, 1, 1), (1, 1, 1), (0, 0, 1), (0.3, 2, 0.5)])
def test_no_difference_is_seldom_seen(spreads: tuple[float, float, float]) -> None:
    """At most about one in twenty, wherever the spread is from; all as one sample: far more."""
    rng = np.random.default_rng(0)
    tables = [draws(rng, spreads) for _ in range(150)]
    seen = np.mean([crossed(table).p < 0.05 for table in tables])
    assert seen < 0.1
    naive = np.mean([stats.ttest_1samp(table.ravel(), 0).pvalue < 0.05 for table in tables])
    assert naive > 0.2 or spreads == (0, 0, 1)


def test_seeds_and_sources_are_crossed() -> None:
    table = draws(np.random.default_rng(3), (1, 0, 0.1)) + 2
    found, of_seeds = crossed(table), stats.ttest_1samp(table.mean(axis=1), 0)
    assert found.mean == pytest.approx(table.mean())
    assert found.count == 5
    assert found.p == pytest.approx(of_seeds.pvalue, rel=0.3)  # seeds are nearly all of it
    assert crossed(table[:1]).p == pytest.approx(stats.ttest_1samp(table[0], 0).pvalue)
    assert crossed(table[:, :1]).p == pytest.approx(stats.ttest_1samp(table[:, 0], 0).pvalue)
    assert crossed(table[:1, :1]).p is None
    holed = {(seed, str(name)): value for (seed, name), value in np.ndenumerate(table)}
    del holed[0, "1"]
    assert crossed_estimate(holed).mean == pytest.approx(np.delete(table, 1, axis=1).mean())
    assert crossed_estimate({}) is None


@pytest.mark.parametrize(("count", "level"), [(5, 0.05), (5, 0.01), (7, 0.025)])
def test_the_smallest_difference_that_can_be_seen(count: int, level: float) -> None:
    """Against the exact power of a t test, by the noncentral t."""
    found = estimate(np.random.default_rng(0).normal(0, 1, count))
    assert found.error is not None
    edge, shift = stats.t.ppf(1 - level / 2, count - 1), found.detectable(level) / found.error
    assert stats.nct.sf(edge, count - 1, shift) == pytest.approx(0.8, abs=1e-3)
    assert estimate([1.0]).detectable(level) is None
