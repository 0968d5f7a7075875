"""Mean and deviation over seeds, differences paired by seed, and the correction for multiple comparisons."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Final

CONFIDENCE: Final = 0.95

# Metrics are computed in single precision; a smaller spread, relative to the value, is rounding.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Mean over `n` seeds and sample standard deviation (n - 1 in the denominator), which is None for one seed."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean difference over `n` seeds, its confidence interval from `low` to `high`, and the p-value of the t-test.

    Interval and p-value are None without any spread: for one seed, or if all differences are equal.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int


def summarize(values: Collection[float]) -> Summary | None:
    """Return the mean and the standard deviation; None without values."""
    if not values:
        return None
    return Summary(mean=fmean(values), sd=stdev(values) if len(values) > 1 else None, n=len(values))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Return `values` minus `baseline`, both by seed, over the seeds that both have; None if they share no seed.

    Interval and two-sided p-value are from Student's t-test for paired samples: the standard error of the mean of n
    differences d is sd(d) / sqrt(n), with n - 1 degrees of freedom.
    """
    seeds = values.keys() & baseline.keys()
    if not seeds:
        return None
    differences = [values[seed] - baseline[seed] for seed in seeds]
    mean, n = fmean(differences), len(differences)
    size = max(abs(side[seed]) for side in (values, baseline) for seed in seeds)
    sd = stdev(differences) if n > 1 else 0.0
    if sd <= _ROUNDING * size:
        return Difference(mean=mean, low=None, high=None, p=None, n=n)

    # scipy.stats has the whole test, but takes seconds to import.
    from scipy.special import stdtr, stdtrit

    error = sd / sqrt(n)
    margin = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return Difference(mean=mean, low=mean - margin, high=mean + margin, p=p, n=n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values, in their order, adjusted for multiple comparisons by Holm's step-down method.

    Compare each adjusted value with the family-wise significance level (Holm 1979, A simple sequentially rejective
    multiple test procedure).
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
