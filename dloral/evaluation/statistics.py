"""Means, intervals and paired differences over independent sources.

Clips cut from one photograph or film are not independent, so they are averaged first: a *source*
counts once, however many clips it gave. Intervals are Student's t over sources, two-sided.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import mpmath

LEVEL = 0.95
"""Of every interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over ``count`` sources; ``half_width``: of its interval, None of a single source.

    ``p``: two-sided probability of a mean at least so far from 0 if the true mean were 0 (t test);
    None of a single source.
    """

    mean: float
    half_width: float | None
    count: int
    p: float | None


def source_means(values: Mapping[str, float], sources: Mapping[str, str]) -> dict[str, float]:
    """Clip -> value, averaged within each source: source -> value."""
    found: dict[str, list[float]] = {}
    for clip, value in values.items():
        found.setdefault(sources[clip], []).append(value)
    return {source: math.fsum(parts) / len(parts) for source, parts in found.items()}


def estimate(values: Iterable[float]) -> Estimate | None:
    """Of independent values; None where there are none."""
    known = list(values)
    if not known:
        return None
    count = len(known)
    mean = math.fsum(known) / count
    if count == 1:
        return Estimate(mean, None, 1, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (count - 1))
    error = deviation / math.sqrt(count)
    if not error:
        return Estimate(mean, 0.0, count, 0.0 if mean else 1.0)
    half_width = t_quantile((1 + LEVEL) / 2, count - 1) * error
    return Estimate(mean, half_width, count, 2 * t_tail(abs(mean) / error, count - 1))


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> Estimate | None:
    """``first - second`` over the sources that both have; None where there are none."""
    return estimate(first[source] - second[source] for source in first if source in second)


def t_tail(t: float, degrees: int) -> float:
    """P(T > t) of Student's t for t >= 0."""
    x = degrees / (degrees + t * t)
    return float(mpmath.betainc(degrees / 2, 0.5, 0, x, regularized=True)) / 2


@cache
def t_quantile(probability: float, degrees: int) -> float:
    """The t with P(T <= t) = probability, for a probability from 0.5 to 1."""
    low, high = 0.0, 1.0
    while t_tail(high, degrees) > 1 - probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, degrees) > 1 - probability else (low, middle)
    return (low + high) / 2


def holm(probabilities: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979), in the order given."""
    count = len(probabilities)
    corrected, least = [0.0] * count, 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: probabilities[i])):
        least = max(least, min(1.0, (count - rank) * probabilities[index]))
        corrected[index] = least
    return corrected
