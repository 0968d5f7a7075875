"""What an ablation table says: one row a variant, over all its seeds, against the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from vitexp.errors import ConfigError
from vitexp.metrics import METRICS
from vitexp.sweeps.tables.results import Outcome
from vitexp.sweeps.tables.statistics import Difference, Summary, holm, paired_difference, summarise

# Of all comparisons of a table together.
SIGNIFICANCE: Final = 0.05

_LABELS: Final = {
    "accuracy": "accuracy",
    "accuracy_top5": "top-5 accuracy",
    "precision_macro": "macro precision",
    "recall_macro": "macro recall",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
    "ece": "calibration error",
    "loss": "loss",
}


@dataclass(frozen=True)
class Metric:
    """One of vitexp.runs.record.METRICS. All but the loss are fractions in [0, 1], which people read as percentages."""

    key: str

    @property
    def label(self) -> str:
        return _LABELS[self.key]

    @property
    def is_fraction(self) -> bool:
        return self.key != "loss"

    @property
    def lower_is_better(self) -> bool:
        return self.key in ("loss", "ece")

    def gain(self, difference: float) -> float:
        """`difference`, positive where it is an improvement."""
        return -difference if self.lower_is_better else difference


@dataclass(frozen=True, kw_only=True)
class Row:
    """A variant. Metrics are as in result.json, over its completed trials; the others are counted, never averaged."""

    name: str
    outcomes: tuple[Outcome, ...]
    is_baseline: bool
    is_best: bool  # by validation
    val: Summary | None
    test: Summary | None
    difference: Difference | None  # to the baseline; None for itself, and where they share no seed
    p_holm: float | None  # of the difference, among all comparisons of the table
    parameters: int | None
    train_s: float | None  # mean over the completed trials
    cost_s: float | None  # extra training seconds for each 0.01 gained over the baseline; None without a gain

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

    def values(self, split: str, metric: Metric) -> dict[int, float]:
        """The completed trials' values by seed."""
        return by_seed(self.outcomes, "metrics", split, metric.key)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows in the order of the sweep. `compared` is the split of the differences: "test", or "val" without a test."""

    title: str
    metric: Metric
    compared: str
    rows: tuple[Row, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have values; both while there are none."""
        present = tuple(split for split in ("val", "test") if any(row.summary(split) for row in self.rows))
        return present or ("val", "test")

    @property
    def baseline(self) -> Row:
        return next(row for row in self.rows if row.is_baseline)

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for row in self.rows for outcome in row.outcomes]


def build_table(
    outcomes: Sequence[Outcome], *, title: str, metric: str = "accuracy", baseline: str | None = None
) -> Table:
    """The table of a sweep in whatever state it is. baseline: the name of a row, None for the first.

    The best row is that of the best mean on validation, among the rows whose seeds are all completed if there are any:
    with some of them missing, a row could win by the seeds that it has. Without validation none is marked.

    Raises:
        ConfigError: no outcome, a metric or row that does not exist, or two trials for one seed of a row.
    """
    if metric not in METRICS:
        raise ConfigError(f"there is no metric {metric!r}; there are {', '.join(METRICS)}.")
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.row, []).append(outcome)
    if not grouped:
        raise ConfigError("the sweep has no trials; give it at least one row and one seed.")
    for name, members in grouped.items():
        if len({outcome.seed for outcome in members}) < len(members):
            raise ConfigError(f"row {name!r} has two trials of one seed; list every seed once.")
    baseline = next(iter(grouped)) if baseline is None else baseline
    if baseline not in grouped:
        raise ConfigError(f"there is no row {baseline!r} to be the baseline; there are {', '.join(grouped)}.")
    return _Builder(grouped, Metric(metric), baseline).table(title)


class _Builder:
    """Measures every row by itself, then the rows against each other."""

    def __init__(self, grouped: Mapping[str, Sequence[Outcome]], metric: Metric, baseline: str) -> None:
        self.grouped, self.metric, self.baseline = grouped, metric, baseline
        self.by_split = {
            split: {name: by_seed(members, "metrics", split, metric.key) for name, members in grouped.items()}
            for split in ("val", "test")
        }
        self.times = {name: by_seed(members, "timing", "fit_s") for name, members in grouped.items()}
        self.compared = (
            "val" if any(self.by_split["val"].values()) and not any(self.by_split["test"].values()) else "test"
        )

    def table(self, title: str) -> Table:
        values = self.by_split[self.compared]
        differences = {
            name: difference
            for name in self.grouped
            if name != self.baseline and (difference := paired_difference(values[name], values[self.baseline]))
        }
        tested = {name: difference.p for name, difference in differences.items() if difference.p is not None}
        adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
        best = self._best()
        rows = tuple(
            Row(
                name=name,
                outcomes=tuple(members),
                is_baseline=name == self.baseline,
                is_best=name == best,
                val=summarise(self.by_split["val"][name].values()),
                test=summarise(self.by_split["test"][name].values()),
                difference=differences.get(name),
                p_holm=adjusted.get(name),
                parameters=_parameters(members),
                train_s=time.mean if (time := summarise(self.times[name].values())) else None,
                cost_s=self._cost(name, differences.get(name)),
            )
            for name, members in self.grouped.items()
        )
        return Table(title=title, metric=self.metric, compared=self.compared, rows=rows)

    def _best(self) -> str | None:
        means = {
            name: summary.mean
            for name, values in self.by_split["val"].items()
            if (summary := summarise(values.values()))
        }
        whole = [name for name in means if len(self.by_split["val"][name]) == len(self.grouped[name])]
        return max(whole or means, key=lambda name: self.metric.gain(means[name]), default=None)

    def _cost(self, name: str, difference: Difference | None) -> float | None:
        times, baseline = self.times[name], self.times[self.baseline]
        extra = [times[seed] - baseline[seed] for seed in times.keys() & baseline.keys()]
        gain = self.metric.gain(difference.mean) if difference else 0.0
        return fmean(extra) / (100 * gain) if extra and gain > 0 else None


def by_seed(outcomes: Sequence[Outcome], *keys: str) -> dict[int, float]:
    """The number at `keys` of every completed trial that has it."""
    return {
        outcome.seed: number
        for outcome in outcomes
        if outcome.status == "completed" and (number := outcome.number(*keys)) is not None
    }


def _parameters(outcomes: Sequence[Outcome]) -> int | None:
    """The net's size, from any trial that came so far: it does not depend on the seed."""
    sizes = (outcome.number("model", "parameters") for outcome in outcomes)
    return next((int(size) for size in sizes if size is not None), None)
