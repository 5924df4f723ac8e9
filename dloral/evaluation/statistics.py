"""Means, intervals and paired differences over independent sources.

Clips cut from one photograph or film are not independent, so they are averaged first: a *source*
counts once, however many clips it gave. Intervals are two-sided Student's t over sources.
Values that are not finite (from a training that diverged) are left out everywhere.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeGuard

import mpmath
import numpy as np

LEVEL = 0.95
"""Of every interval."""

POWER = 0.8
"""The chance of being seen that the smallest difference that a test can see has."""


@dataclass(frozen=True)
class Estimate:
    """A mean over ``count`` sources; ``half_width``: of its interval, None for a single source.

    ``p``: two-sided probability of a mean at least as far from 0 if the true mean were 0 (t test);
    None for a single source. ``error``: the mean's standard error, with ``degrees`` of freedom.
    """

    mean: float
    half_width: float | None
    count: int
    p: float | None
    error: float | None = None
    degrees: float | None = None

    def detectable(self, level: float) -> float | None:
        """The true difference that a two-sided test at ``level`` detects with power POWER, given
        the measured spread; None for a single source."""
        if self.error is None or self.degrees is None:
            return None
        edge = t_quantile(1 - level / 2, self.degrees)
        low, high = 0.0, 3 * edge + 3
        for _ in range(30):
            middle = (low + high) / 2
            seen = noncentral_t_tail(edge, self.degrees, middle) > POWER
            low, high = (low, middle) if seen else (middle, high)
        return high * self.error


def is_finite(value: float | None) -> TypeGuard[float]:
    """Whether it is a usable number. None is how NaN comes back from our JSON."""
    return value is not None and math.isfinite(value)


def source_means(values: Mapping[str, float], sources: Mapping[str, str]) -> dict[str, float]:
    """Clip -> value, averaged within each source: source -> value."""
    found: dict[str, list[float]] = {}
    for clip, value in values.items():
        found.setdefault(sources[clip], []).append(value)
    return {source: math.fsum(parts) / len(parts) for source, parts in found.items()}


def estimate(values: Iterable[float]) -> Estimate | None:
    """The estimate from independent values, using only finite ones; None if there are none."""
    known = [value for value in values if is_finite(value)]
    if not known:
        return None
    count = len(known)
    mean = math.fsum(known) / count
    if count == 1:
        return Estimate(mean, None, 1, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (count - 1))
    return _estimate(mean, deviation / math.sqrt(count), count - 1, count)


def _estimate(mean: float, error: float, degrees: float, count: int) -> Estimate:
    if not error:
        return Estimate(mean, 0.0, count, 0.0 if mean else 1.0, 0.0, degrees)
    half_width = t_quantile((1 + LEVEL) / 2, degrees) * error
    p = 2 * t_tail(abs(mean) / error, degrees)
    return Estimate(mean, half_width, count, p, error, degrees)


def complete(values: Mapping[tuple[int, str], float]) -> dict[tuple[int, str], float]:
    """The finite ones of values by (seed, source), for sources that every seed has."""
    known = {place: value for place, value in values.items() if is_finite(value)}
    seeds = {seed for seed, _ in known}
    return {
        (seed, source): value
        for (seed, source), value in known.items()
        if all((other, source) in known for other in seeds)
    }


def crossed_estimate(values: Mapping[tuple[int, str], float]) -> Estimate | None:
    """The mean of values by (seed, source), generalising to other seeds and other sources.

    Values of one seed share its training and values of one source its picture, so they are not
    independent: the mean's variance is that of two crossed random effects, its degrees of freedom
    Satterthwaite's. If by chance it is smaller than seeds alone or sources alone show, the larger
    of those is used. Only :func:`complete` values count; with one seed or one source, the values
    along the other factor are the sample. ``count``: of seeds. None where nothing is left.
    """
    values = complete(values)
    if not values:
        return None
    seeds = sorted({seed for seed, _ in values})
    sources = sorted({name for _, name in values})
    table = np.array([[values[seed, name] for name in sources] for seed in seeds])
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    if min(table.shape) == 1:
        return estimate((columns if len(rows) == 1 else rows).tolist())
    mean, free = float(table.mean()), (len(rows) - 1, len(columns) - 1)
    of_seeds = float(len(columns) * rows.var(ddof=1))
    of_sources = float(len(rows) * columns.var(ddof=1))
    rest = ((table - rows[:, None] - columns + mean) ** 2).sum() / (free[0] * free[1])
    variance = of_seeds + of_sources - rest
    largest, degrees = max((of_seeds, free[0]), (of_sources, free[1]))
    if variance > largest:
        parts = of_seeds**2 / free[0] + of_sources**2 / free[1] + rest**2 / (free[0] * free[1])
        largest, degrees = variance, variance**2 / parts
    return _estimate(mean, math.sqrt(largest / table.size), degrees, len(seeds))


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> Estimate | None:
    """``first - second`` over the sources that both have, where it is finite; None if there are
    none."""
    return estimate(first[source] - second[source] for source in first if source in second)


def paired_ratio(first: Mapping[str, float], second: Mapping[str, float]) -> Estimate | None:
    """The natural logarithm of ``first / second``, over the sources where both are above 0; its
    exponential is the ratio of geometric means."""
    positive = (
        {source: math.log(value) for source, value in values.items() if value > 0}
        for values in (first, second)
    )
    return paired_difference(*positive)


def t_tail(t: float, degrees: float) -> float:
    """P(T > t) of Student's t for t >= 0."""
    x = degrees / (degrees + t * t)
    return float(mpmath.betainc(degrees / 2, 0.5, 0, x, regularized=True)) / 2


def noncentral_t_tail(t: float, degrees: float, shift: float) -> float:
    """P(T > t) of a noncentral t: (N(0, 1) + shift) over the root of chi squared / degrees."""
    spread = np.linspace(0, 6, 1201)[1:]
    log_density = (degrees - 1) * np.log(spread) - degrees * spread**2 / 2
    density = np.exp(log_density - log_density.max())
    above = [math.erfc((t * s - shift) / math.sqrt(2)) / 2 for s in spread.tolist()]
    return float((density * above).sum() / density.sum())


@cache
def t_quantile(probability: float, degrees: float) -> float:
    """The t with P(T <= t) = probability, for a probability from 0.5 to 1."""
    # Newton's method: the tail is convex, so steps from 0 approach from below, never overshooting.
    half = (degrees + 1) / 2
    scale = math.exp(math.lgamma(half) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    t, step = 0.0, 1.0
    while abs(step) > 1e-12 * (1 + t):
        density = scale * (1 + t * t / degrees) ** -half
        step = (t_tail(t, degrees) - (1 - probability)) / density
        t += step
    return t


def holm(probabilities: Sequence[float]) -> list[float]:
    """p-values corrected for multiple comparisons (Holm, 1979), in the order given."""
    count = len(probabilities)
    corrected, least = [0.0] * count, 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: probabilities[i])):
        least = max(least, min(1.0, (count - rank) * probabilities[index]))
        corrected[index] = least
    return corrected
