"""The words of a table: its headings, cells and notes as plain text, the same in every format that people read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vitexp.sweeps.tables.results import STATUSES
from vitexp.sweeps.tables.statistics import CONFIDENCE, Difference, Summary
from vitexp.sweeps.tables.table import SIGNIFICANCE, Metric, Row, Table

SPLITS: Final = {"val": "validation", "test": "test"}
BEST: Final = "★"
SIGNIFICANT: Final = "*"
NOTHING: Final = "–"


def headings(table: Table) -> list[str]:
    """One a column of `cells`, broken into lines where it may be."""
    unit, step = ("\n(%)", "\n(points)") if table.metric.is_fraction else ("", "")
    return [
        "",
        "seeds",
        *(f"{SPLITS[split]}\n{table.metric.label}{unit}" for split in table.splits),
        f"Δ {SPLITS[table.compared]}{step}\n[{CONFIDENCE:.0%} interval]",
        "para-\nmeters",
        "training\ntime",
        f"time\nper {_step(table.metric)}",
    ]


def cells(table: Table, row: Row) -> list[str]:
    """The row's text: name, seeds, validation, test, difference, parameters, time, cost."""
    return [
        one_line(row.name),
        seeds(row),
        *(_mean(table.metric, row, split) for split in table.splits),
        "baseline" if row.is_baseline else _difference(table.metric, row),
        count(row.parameters),
        duration(row.train_s),
        "" if row.cost_s is None else signed(duration(row.cost_s)),
    ]


def _step(metric: Metric) -> str:
    """What a gain of 0.01 is called."""
    return "point" if metric.is_fraction else "0.01"


def notes(table: Table) -> list[str]:
    """What the marks mean, and what speaks against comparing the rows; a sentence or two each."""
    metric, split = table.metric, SPLITS[table.compared]
    return [
        *_choice(table),
        "Mean ± standard deviation over the completed seeds alone; what failed or is missing is counted under seeds.",
        f"Δ is the difference to {one_line(table.baseline.name)} on {split}, paired by seed, with its {CONFIDENCE:.0%} "
        f"confidence interval (Student t).{_significance(table)}",
        f"Time per {_step(metric)}: extra training time for each {_step(metric)} of {split} {metric.label} gained over "
        "the baseline; empty where nothing was gained.",
        *(["Lower is better."] if metric.lower_is_better else []),
        *_doubts(table),
    ]


def _significance(table: Table) -> str:
    tested = sum(row.p_holm is not None for row in table.rows)
    comparisons = "1 comparison" if tested == 1 else f"{tested} comparisons"
    return f" {SIGNIFICANT} marks p < {SIGNIFICANCE:g} after Holm's correction for {comparisons}." if tested else ""


def _choice(table: Table) -> list[str]:
    best = next((row for row in table.rows if row.is_best), None)
    if best is None:
        return []
    what = "complete row" if best.completed == len(best.outcomes) else "row so far"
    reports = " Test reports: it chose nothing." if "test" in table.splits else ""
    return [f"Validation chooses: {BEST} is the best {what} by it.{reports}"]


def _doubts(table: Table) -> list[str]:
    """Trials that ran elsewhere, or with other code, differ in more than their row."""
    completed = [outcome for outcome in table.outcomes if outcome.status == "completed"]
    devices = _distinct(outcome.get("environment", "device") for outcome in completed)
    commits = _distinct(outcome.get("environment", "git_commit") for outcome in completed)
    doubts = []
    if len(devices) > 1:
        doubts.append(f"Times are not comparable: the trials ran on {' and '.join(map(one_line, devices))}.")
    if len(commits) > 1:
        doubts.append(f"The trials come from {len(commits)} versions of the code: {', '.join(c[:7] for c in commits)}.")
    return doubts


def _distinct(values: Iterable[object]) -> list[str]:
    return sorted({str(value) for value in values if value is not None})


def seeds(row: Row) -> str:
    """How many of the planned trials are completed, and what the others are."""
    others = [f"{number} {status}" for status in STATUSES[1:] if (number := row.count(status))]
    return ", ".join([f"{row.completed} of {len(row.outcomes)}", *others])


def value(metric: Metric, number: float) -> str:
    """Fractions as percent without the sign, anything else as it is."""
    return f"{100 * number:.2f}" if metric.is_fraction else f"{number:.4f}"


def _mean(metric: Metric, row: Row, split: str) -> str:
    summary = row.summary(split)
    if summary is None:
        return NOTHING
    deviation = "" if summary.sd is None else f" ± {value(metric, summary.sd)}"
    best = f" {BEST}" if row.is_best and split == "val" else ""
    return value(metric, summary.mean) + deviation + _of_fewer(row, summary) + best


def _difference(metric: Metric, row: Row) -> str:
    difference = row.difference
    if difference is None:
        return NOTHING
    mean = signed(value(metric, difference.mean))
    if difference.low is None or difference.high is None:
        return mean + (_of_fewer(row, difference) if difference.n == 1 else f" (all {difference.n} equal)")
    interval = f" [{signed(value(metric, difference.low))}, {signed(value(metric, difference.high))}]"
    return mean + (SIGNIFICANT if row.is_significant else "") + interval + _of_fewer(row, difference)


def _of_fewer(row: Row, over: Summary | Difference) -> str:
    """How many seeds a number is of, where it is not the row's completed ones or cannot have a deviation."""
    return f" (n = {over.n})" if over.n == 1 or over.n != row.completed else ""


def signed(number: str) -> str:
    """With a sign as typeset; a zero has none."""
    if not any(digit in number for digit in "123456789"):
        return number.removeprefix("-")
    return number.replace("-", "−") if number.startswith("-") else f"+{number}"


def count(number: int | None) -> str:
    """In three figures: 2.68 M."""
    if number is None:
        return NOTHING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def duration(seconds: float | None) -> str:
    """In one unit: 97.8 s, 12.4 min, 3.1 h."""
    if seconds is None:
        return NOTHING
    size, unit = (3600, "h") if abs(seconds) >= 7200 else (60, "min") if abs(seconds) >= 120 else (1, "s")
    return f"{seconds / size:.1f} {unit}"


def one_line(text: str) -> str:
    """`text` without line breaks or characters that a terminal would obey."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
