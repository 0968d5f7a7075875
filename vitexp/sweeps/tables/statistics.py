"""Mean and deviation over seeds, differences paired by seed, and the correction for many comparisons."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Final

CONFIDENCE: Final = 0.95

# Metrics are computed in single precision: relative to their size, a smaller spread is rounding.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Mean over `n` seeds and sample standard deviation (n - 1 in the denominator); of one seed there is none."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean difference over `n` seeds, with its confidence interval from `low` to `high` and the p-value of the t-test.

    These three are None where the differences have no spread to judge them by: of one seed, or all of them equal.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int


def summarise(values: Collection[float]) -> Summary | None:
    """None of no values."""
    if not values:
        return None
    return Summary(mean=fmean(values), sd=stdev(values) if len(values) > 1 else None, n=len(values))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """`values` minus `baseline`, both by seed, over the seeds that are in both; None where no seed is.

    Interval and p-value (two-sided) are those of Student's t-test for paired samples: of n differences d, mean(d) is
    judged by sd(d) / sqrt(n) with n - 1 degrees of freedom.
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

    # scipy.stats has the whole test, but takes seconds to import and several times as long for each.
    from scipy.special import stdtr, stdtrit

    error = sd / sqrt(n)
    margin = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return Difference(mean=mean, low=mean - margin, high=mean + margin, p=p, n=n)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, in their order, adjusted for their number: compare each with the level wanted of all together.

    Holm's step-down method (Holm 1979, A simple sequentially rejective multiple test procedure).
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
