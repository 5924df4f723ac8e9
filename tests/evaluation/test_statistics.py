"""Intervals and paired differences, against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from dloral.evaluation.statistics import (
    estimate,
    holm,
    paired_difference,
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


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
