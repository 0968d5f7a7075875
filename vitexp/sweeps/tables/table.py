"""The content of an ablation table: a row per variant, averaged over seeds or folds and compared with the baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from types import MappingProxyType
from typing import Final, TypeAlias

from vitexp.errors import ConfigError
from vitexp.metrics import METRICS, Metric
from vitexp.sweeps.tables.results import Outcome
from vitexp.sweeps.tables.statistics import Difference, Summary, holm, paired_difference, summarize

Repetition: TypeAlias = "tuple[int, int | None]"  # seed and fold
SIGNIFICANCE: Final = 0.05  # family-wise, over all comparisons of a table


@dataclass(frozen=True, kw_only=True)
class Row:
    """A variant. Metrics are as in result.json and over the completed trials; the other trials are only counted."""

    name: str
    outcomes: tuple[Outcome, ...]
    is_baseline: bool
    is_best: bool  # by validation
    val: Summary | None
    test: Summary | None
    ensemble: Summary | None  # metric of the averaged test predictions of n trials, in a sweep over folds
    difference: Difference | None  # from the baseline; None for the baseline, and without common seeds
    step: Difference | None  # from the row above, in a cumulative ablation
    p_holm: float | None  # of the difference, among all comparisons of the table
    parameters: int | None
    train_s: float | None  # mean over the completed trials
    cost_s: float | None  # extra training seconds per 0.01 gained over the baseline; None without a significant gain

    @property
    def completed(self) -> int:
        return self.count("completed")

    @property
    def is_significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE

    def count(self, status: str) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)

    def summary(self, split: str) -> Summary | None:
        return self.test if split == "test" else self.val

    def values(self, split: str, key: str) -> dict[Repetition, float]:
        """Return the values of the completed trials by seed and fold. key: a metric of result.json."""
        return by_repetition(self.outcomes, "metrics", split, key)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows in the order of the sweep.

    key: the metric in result.json. compared: the split on which rows are compared: "test", or "val" if none was tested.
    folds: the number of folds of the training images, each validated by one trial per row and seed; None: no folds.
    is_cumulative: each row changes the one above it, so that rows are also compared with that one.
    """

    title: str
    key: str
    compared: str
    folds: int | None
    is_cumulative: bool
    rows: tuple[Row, ...]

    @property
    def metric(self) -> Metric:
        return METRICS[self.key]

    @property
    def repetitions(self) -> str:
        """What distinguishes the trials of a row: "seeds" or "folds"."""
        return "seeds" if self.folds is None else "folds"

    @property
    def has_values(self) -> bool:
        """Whether any row has a value to draw."""
        return any(row.summary(self.compared) for row in self.rows)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have values; both if there are none yet."""
        present = tuple(split for split in ("val", "test") if any(row.summary(split) for row in self.rows))
        return present or ("val", "test")

    @property
    def baseline(self) -> Row:
        return next(row for row in self.rows if row.is_baseline)

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for row in self.rows for outcome in row.outcomes]


def build_table(
    outcomes: Sequence[Outcome],
    *,
    title: str,
    metric: str = "accuracy",
    baseline: str | None = None,
    folds: int | None = None,
    ensembles: Mapping[str, Summary] = MappingProxyType({}),
    is_cumulative: bool = False,
) -> Table:
    """Return the table of a sweep, complete or not. baseline: the name of a row; None is the first.

    folds: their number if the trials of a row differ in their fold. ensembles: what averaged predictions reach, by row.
    is_cumulative: whether each row changes the one above it.

    The best row has the best mean on validation, among the rows whose seeds are all completed if there are any: an
    incomplete row could win by a lucky choice of seeds. Without validation no row is marked.

    Raises ConfigError without outcomes, for an unknown metric or row, and for a row with two trials of the same seed
    and fold.
    """
    if metric not in METRICS:
        raise ConfigError(f"there is no metric {metric!r}; choose from {', '.join(METRICS)}.")
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.row, []).append(outcome)
    if not grouped:
        raise ConfigError("the sweep has no trials; give it at least one row and one seed.")
    for name, members in grouped.items():
        if len({(outcome.seed, outcome.fold) for outcome in members}) < len(members):
            raise ConfigError(f"row {name!r} has two trials with the same seed; list every seed once.")
    baseline = next(iter(grouped)) if baseline is None else baseline
    if baseline not in grouped:
        raise ConfigError(f"baseline={baseline} is not a row; choose from {', '.join(grouped)}.")
    by_split = {
        split: {name: by_repetition(members, "metrics", split, metric) for name, members in grouped.items()}
        for split in ("val", "test")
    }
    times = {name: by_repetition(members, "timing", "fit_s") for name, members in grouped.items()}
    compared = "val" if any(by_split["val"].values()) and not any(by_split["test"].values()) else "test"
    differences = {
        name: difference
        for name, values in by_split[compared].items()
        if name != baseline and (difference := paired_difference(values, by_split[compared][baseline], folds=folds))
    }
    values = list(by_split[compared].values())
    steps = (
        dict(zip(list(grouped)[1:], map(partial(paired_difference, folds=folds), values[1:], values), strict=False))
        if is_cumulative
        else {}
    )
    tested = {name: difference.p for name, difference in differences.items() if difference.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    gain = METRICS[metric].gain
    best = _best(by_split["val"], {name: len(members) for name, members in grouped.items()}, gain)
    rows = tuple(
        Row(
            name=name,
            outcomes=tuple(members),
            is_baseline=name == baseline,
            is_best=name == best,
            val=summarize(by_split["val"][name].values(), folds=folds),
            test=summarize(by_split["test"][name].values(), folds=folds),
            ensemble=ensembles.get(name),
            difference=differences.get(name),
            step=steps.get(name),
            p_holm=adjusted.get(name),
            parameters=_parameters(members),
            train_s=time.mean if (time := summarize(times[name].values())) else None,
            cost_s=_cost(times[name], times[baseline], gain(differences[name].mean))
            if adjusted.get(name, 1.0) < SIGNIFICANCE
            else None,
        )
        for name, members in grouped.items()
    )
    return Table(title=title, key=metric, compared=compared, folds=folds, is_cumulative=is_cumulative, rows=rows)


def _best(
    values: Mapping[str, Mapping[Repetition, float]], planned: Mapping[str, int], gain: Callable[[float], float]
) -> str | None:
    """Return the row with the best mean of `values` (by row and repetition), preferably one with all planned trials."""
    means = {name: fmean(of_row.values()) for name, of_row in values.items() if of_row}
    complete = [name for name in means if len(values[name]) == planned[name]]
    return max(complete or means, key=lambda name: gain(means[name]), default=None)


def _cost(times: Mapping[Repetition, float], baseline: Mapping[Repetition, float], gain: float) -> float | None:
    """Return the extra seconds, over the common repetitions, per 0.01 of `gain`; None without a gain."""
    extra = [times[each] - baseline[each] for each in times.keys() & baseline.keys()]
    return fmean(extra) / (100 * gain) if extra and gain > 0 else None


def by_repetition(outcomes: Sequence[Outcome], *keys: str) -> dict[Repetition, float]:
    """Return the number at `keys` by seed and fold, for every completed trial that has it."""
    return {
        (outcome.seed, outcome.fold): number
        for outcome in outcomes
        if outcome.status == "completed" and (number := outcome.number(*keys)) is not None
    }


def _parameters(outcomes: Sequence[Outcome]) -> int | None:
    """Return the size of the net, from any trial that recorded it: it does not depend on the seed."""
    sizes = (outcome.number("model", "parameters") for outcome in outcomes)
    return next((int(size) for size in sizes if size is not None), None)
