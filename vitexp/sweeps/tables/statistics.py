"""Mean and deviation over seeds or folds, paired differences, and the correction for multiple comparisons."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Final, TypeVar

CONFIDENCE: Final = 0.95
Key = TypeVar("Key", bound=Hashable)

# Metrics are computed in single precision; a smaller spread, relative to the value, is rounding.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Mean over `n` trials and sample standard deviation (n - 1 in the denominator), which is None for one trial.

    low, high: confidence interval of the mean, over folds only; None without any spread.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean difference over `n` pairs of trials, its confidence interval from `low` to `high`, and the p-value.

    Interval and p-value are None without any spread: for one pair, or if all differences are equal.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int


def summarize(values: Collection[float], *, folds: int | None = None) -> Summary | None:
    """Return the mean and the standard deviation, and the interval if the values are of trials on `folds` folds.

    None without values.
    """
    if not values:
        return None
    mean, n, sd = fmean(values), len(values), stdev(values) if len(values) > 1 else None
    if folds is None or sd is None or sd <= _ROUNDING * max(map(abs, values)):
        return Summary(mean=mean, sd=sd, n=n)
    margin = _quantile(n) * standard_error(sd, n, folds=folds)
    return Summary(mean=mean, sd=sd, n=n, low=mean - margin, high=mean + margin)


def paired_difference(
    values: Mapping[Key, float], baseline: Mapping[Key, float], *, folds: int | None = None
) -> Difference | None:
    """Return `values` minus `baseline`, both by seed (and fold), over the keys of both; None if they share none.

    folds: the number of folds if the trials differ in their fold.

    Interval and two-sided p-value are from Student's t-test for paired samples, with n - 1 degrees of freedom.
    """
    shared = values.keys() & baseline.keys()
    if not shared:
        return None
    differences = [values[key] - baseline[key] for key in shared]
    mean, n = fmean(differences), len(differences)
    size = max(abs(side[key]) for side in (values, baseline) for key in shared)
    sd = stdev(differences) if n > 1 else 0.0
    if sd <= _ROUNDING * size:
        return Difference(mean=mean, low=None, high=None, p=None, n=n)

    # scipy.stats has the whole test, but takes seconds to import.
    from scipy.special import stdtr

    error = standard_error(sd, n, folds=folds)
    margin = _quantile(n) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return Difference(mean=mean, low=mean - margin, high=mean + margin, p=p, n=n)


def standard_error(sd: float, n: int, *, folds: int | None = None) -> float:
    """Return the standard error of the mean of n values with standard deviation sd.

    Independent trials: sd / sqrt(n). Trials on folds share training images and therefore vary less than independent
    ones; the corrected variance of Nadeau and Bengio (2003, Inference for the generalization error) is
    sd^2 (1 / n + validation images / training images), also for repeated folds (Bouckaert and Frank 2004). It is an
    approximation: there is no unbiased estimator (Bengio and Grandvalet 2004).
    """
    return sd * sqrt(1 / n + (0 if folds is None else 1 / (folds - 1)))


def _quantile(n: int) -> float:
    """Return by how many standard errors the confidence interval of n values extends to each side."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))


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
