from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

from vitexp.sweeps.tables.statistics import holm, paired_difference, standard_error, summarize


def by_seed(values: object) -> dict[int, float]:
    return dict(enumerate(np.asarray(values, dtype=float).tolist()))


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_equals_scipy_on_random_data(n: int) -> None:
    random = np.random.default_rng(n)
    for _ in range(50):
        values, baseline = random.normal(0.9, 0.01, n), random.normal(0.89, 0.02, n)
        ours = paired_difference(by_seed(values), by_seed(baseline))
        theirs = stats.ttest_rel(values, baseline)
        interval = theirs.confidence_interval(0.95)
        assert ours is not None
        assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
        assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
        summary = summarize(values.tolist())
        assert summary is not None
        assert (summary.mean, summary.sd, summary.n) == pytest.approx((values.mean(), values.std(ddof=1), n), rel=1e-9)


def test_equals_the_books() -> None:
    """Differences 1, 2, 3: sd 1, standard error 1/√3, t = 2√3 with 2 degrees of freedom, whose 97.5 % point is 4.303.

    With two degrees of freedom P(|T| > t) = 1 - t / √(2 + t²).
    """
    difference = paired_difference({1: 11.0, 2: 22.0, 3: 33.0}, {1: 10.0, 2: 20.0, 3: 30.0})
    assert difference is not None and difference.mean == 2
    assert difference.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)
    assert difference.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-6)
    assert difference.p == pytest.approx(1 - 12**0.5 / 14**0.5, abs=1e-12)


def test_seeds_are_paired_by_their_number_and_only_where_both_have_one() -> None:
    values = {3: 0.95, 1: 0.92, 2: 0.90, 9: 0.1}
    baseline = {0: 0.99, 1: 0.90, 2: 0.89, 3: 0.92}
    difference = paired_difference(values, baseline)
    assert difference is not None and difference.n == 3
    assert difference.mean == pytest.approx(0.02)
    assert difference.p == pytest.approx(stats.ttest_rel([0.92, 0.90, 0.95], [0.90, 0.89, 0.92]).pvalue)
    assert paired_difference({1: 0.9}, {2: 0.9}) is None


def test_of_one_seed_there_is_no_deviation_and_no_interval() -> None:
    summary = summarize([0.9])
    assert summary is not None and (summary.mean, summary.sd, summary.n) == (0.9, None, 1)
    difference = paired_difference({1: 0.9}, {1: 0.8})
    assert difference is not None and (difference.low, difference.high, difference.p, difference.n) == (None,) * 3 + (
        1,
    )
    assert summarize([]) is None


@pytest.mark.parametrize("gain", [0.0, 0.01])
def test_equal_differences_cannot_be_judged(gain: float) -> None:
    """This holds even if they differ in the last digits, because of single precision."""
    baseline = np.float32([0.10, 0.92, 0.5])
    values = baseline + np.float32(gain)
    assert gain == 0 or len({float(a) - float(b) for a, b in zip(values, baseline, strict=True)}) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        difference = paired_difference(by_seed(values), by_seed(baseline))
    assert difference is not None and difference.mean == pytest.approx(gain, abs=1e-7)
    assert (difference.low, difference.high, difference.p) == (None, None, None)


def test_one_image_more_or_less_is_a_spread() -> None:
    baseline, values = [0.9, 0.9, 0.9], [0.91, 0.91, 0.91 + 1 / 12630]
    difference = paired_difference(by_seed(values), by_seed(baseline))
    assert difference is not None and difference.p == pytest.approx(stats.ttest_rel(values, baseline).pvalue, rel=1e-6)


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [
        # 4 · 0.005; 3 · 0.01; 2 · 0.03; 1 · 0.04 is less than what comes before it
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.5], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm(raw: list[float], adjusted: list[float]) -> None:
    assert holm(raw) == pytest.approx(adjusted)


def test_holm_errs_among_true_nulls_as_rarely_as_promised() -> None:
    random = np.random.default_rng(0)
    families = random.uniform(size=(4000, 6))
    wrong = np.mean([min(holm(family.tolist())) < 0.05 for family in families])
    assert 0.04 < wrong < 0.06


def test_folds_widen_intervals_by_the_correction_of_nadeau_and_bengio() -> None:
    """Differences 1, 2, 3 on three folds: sd 1, variance of the mean 1/3 + 1/2, t = 2 / sqrt(5/6), 2 degrees."""
    values, baseline = {0: 11.0, 1: 22.0, 2: 33.0}, {0: 10.0, 1: 20.0, 2: 30.0}
    difference, summary = paired_difference(values, baseline, folds=3), summarize([1.0, 2.0, 3.0], folds=3)
    error, t = (5 / 6) ** 0.5, 2 / (5 / 6) ** 0.5
    assert difference is not None and summary is not None
    assert (difference.low, difference.high) == pytest.approx((2 - 4.302653 * error, 2 + 4.302653 * error), abs=1e-6)
    assert difference.p == pytest.approx(1 - t / (2 + t**2) ** 0.5, abs=1e-12)
    assert (summary.mean, summary.sd, summary.n) == (2, 1, 3)
    assert (summary.low, summary.high) == pytest.approx((difference.low, difference.high))


def test_the_ratio_of_the_correction_is_that_of_validation_to_training_images() -> None:
    assert standard_error(0.5, 10) == pytest.approx(0.5 / 10**0.5)
    for folds in (2, 5, 10):
        share = (1 / folds) / (1 - 1 / folds)
        assert standard_error(0.5, 30, folds=folds) == pytest.approx(0.5 * (1 / 30 + share) ** 0.5)


@pytest.mark.parametrize("values", [[0.9], [0.9, 0.9, 0.9]])
def test_without_a_spread_over_folds_there_is_no_interval(values: list[float]) -> None:
    summary = summarize(values, folds=3)
    assert summary is not None and (summary.low, summary.high) == (None, None)
