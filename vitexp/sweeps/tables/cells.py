"""The headings, cells and notes of a table as plain text, the same in every format that people read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vitexp.sweeps.tables.results import STATUSES
from vitexp.sweeps.tables.statistics import CONFIDENCE, Difference, Summary
from vitexp.sweeps.tables.table import SIGNIFICANCE, Row, Table
from vitexp.text import duration, plural

SPLITS: Final = {"val": "validation", "test": "test"}
BEST: Final = "★"
SIGNIFICANT: Final = "*"
NOTHING: Final = "–"


def headings(table: Table) -> list[str]:
    """Return one heading per column of `cells`, with line breaks where they are allowed."""
    unit, step = ("\n(%)", "\n(points)") if table.metric.is_percent else ("", "")
    return [
        "",
        table.repetitions,
        *(f"{SPLITS[split]}\n{table.metric.label}{unit}" for split in table.splits),
        *[f"ensemble\n{table.metric.label}{unit}"] * (table.folds is not None),
        f"Δ {SPLITS[table.compared]}{step}\n[{CONFIDENCE:.0%} interval]",
        *[f"Δ row above{step}\n[{CONFIDENCE:.0%} interval]"] * table.is_cumulative,
        "para-\nmeters\n(M)",
        "training\ntime",
        f"time\nper {_step(table)}",
    ]


def cells(table: Table, row: Row) -> list[str]:
    """Return the text of a row: name, trials, validation, test, ensemble, differences, parameters, time, cost."""
    return [
        one_line(row.name),
        seeds(row),
        *(_mean(table, row, split) for split in table.splits),
        *[_ensemble(table, row)] * (table.folds is not None),
        "baseline" if row.is_baseline else _difference(table, row, row.difference, is_marked=row.is_significant),
        *[_difference(table, row, row.step) if row is not table.rows[0] else ""] * table.is_cumulative,
        NOTHING if row.parameters is None else f"{row.parameters / 1e6:.3g}",
        NOTHING if row.train_s is None else duration(row.train_s),
        "" if row.cost_s is None else signed(f"{'-' * (row.cost_s < 0)}{duration(abs(row.cost_s))}"),
    ]


def _step(table: Table) -> str:
    """Return the unit name of a gain of 0.01: "point" for a percentage, otherwise "0.01"."""
    return "point" if table.metric.is_percent else "0.01"


def notes(table: Table) -> list[str]:
    """Return notes of a sentence or two: what the marks mean, and why rows may not be comparable."""
    split, step = SPLITS[table.compared], _step(table)
    pair, spread = ("seed", "") if table.folds is None else ("seed and fold", f" [{CONFIDENCE:.0%} interval]")
    tested = sum(row.p_holm is not None for row in table.rows)
    holm = f"{SIGNIFICANT} marks p < {SIGNIFICANCE:g} after Holm's correction for {plural(tested, 'comparison')}."
    return [
        *_choice(table),
        f"Mean ± standard deviation{spread} over the completed {table.repetitions}; the {table.repetitions} column "
        "lists failed and missing ones.",
        *_about_folds(table),
        f"Δ is the difference from the baseline ({one_line(table.baseline.name)}) on {split}, paired by {pair}, with "
        f"its {CONFIDENCE:.0%} confidence interval (Student t).{f' {holm}' if tested else ''}",
        *[f"Δ row above is the difference from the row above, paired by {pair}; its intervals are not corrected."]
        * table.is_cumulative,
        f"Time per {step}: extra training time per {step} of {split} {table.metric.label} gained over the baseline; "
        "empty without a significant gain, negative if the training was shorter.",
        *(["Lower is better."] if table.metric.direction == "min" else []),
        *_warnings(table),
    ]


def _about_folds(table: Table) -> list[str]:
    if table.folds is None:
        return []
    return [
        f"Each trial is validated on one of {table.folds} folds of the training images and trained on the others. "
        "Trials share training images, so that they vary less than independent ones: all intervals and p-values "
        f"multiply the variance of the mean of n trials by 1 + n/{table.folds - 1} (Nadeau and Bengio 2003), an "
        "approximation.",
        f"Ensemble: test {table.metric.label} of the averaged probabilities of the completed trials of a row.",
    ]


def _choice(table: Table) -> list[str]:
    best = next((row for row in table.rows if row.is_best), None)
    if best is None:
        return []
    what = "best row" if best.completed == len(best.outcomes) else "best row so far"
    test = "; test numbers were not used to choose" if "test" in table.splits else ""
    return [f"{BEST} {what} by validation {table.metric.label}{test}."]


def _warnings(table: Table) -> list[str]:
    """Return notes on trials that ran on different devices or with different versions of the code."""
    completed = [outcome for outcome in table.outcomes if outcome.status == "completed"]
    devices = _distinct(outcome.get("environment", "device") for outcome in completed)
    commits = _distinct(outcome.get("environment", "git_commit") for outcome in completed)
    found = []
    if len(devices) > 1:
        found.append(f"Times are not comparable: the trials ran on {' and '.join(map(one_line, devices))}.")
    if len(commits) > 1:
        found.append(f"The trials ran with {len(commits)} versions of the code: {', '.join(c[:7] for c in commits)}.")
    return found


def _distinct(values: Iterable[object]) -> list[str]:
    return sorted({str(value) for value in values if value is not None})


def seeds(row: Row) -> str:
    """Return how many of the planned trials are completed, and the status of the others."""
    others = [f"{number} {status}" for status in STATUSES[1:] if (number := row.count(status))]
    return ", ".join([f"{row.completed} of {len(row.outcomes)}", *others])


def format_metric(table: Table, number: float) -> str:
    """Return a value of the table's metric, as percent without the sign if it is a fraction."""
    return table.metric.format(number).removesuffix("%")


def _mean(table: Table, row: Row, split: str) -> str:
    summary = row.summary(split)
    if summary is None:
        return NOTHING
    deviation = "" if summary.sd is None else f" ± {format_metric(table, summary.sd)}"
    best = f" {BEST}" if row.is_best and split == "val" else ""
    return format_metric(table, summary.mean) + deviation + _interval(table, summary) + _count(row, summary) + best


def _interval(table: Table, summary: Summary) -> str:
    if summary.low is None or summary.high is None:
        return ""
    low, high = summary.low, summary.high
    if table.metric.is_percent:  # of few trials, the interval may extend further
        low, high = max(low, 0.0), min(high, 1.0)
    return f" [{format_metric(table, low)}, {format_metric(table, high)}]"


def _ensemble(table: Table, row: Row) -> str:
    return NOTHING if row.ensemble is None else format_metric(table, row.ensemble.mean) + _count(row, row.ensemble)


def _difference(table: Table, row: Row, difference: Difference | None, *, is_marked: bool = False) -> str:
    if difference is None:
        return NOTHING
    mean = signed(format_metric(table, difference.mean))
    if difference.low is None or difference.high is None:
        return mean + (_count(row, difference) if difference.n == 1 else f" (all {difference.n} equal)")
    interval = f" [{signed(format_metric(table, difference.low))}, {signed(format_metric(table, difference.high))}]"
    return mean + (SIGNIFICANT if is_marked else "") + interval + _count(row, difference)


def _count(row: Row, over: Summary | Difference) -> str:
    """Return " (n = N)" for a value over one trial, or over fewer than the completed trials; otherwise ""."""
    return f" (n = {over.n})" if over.n == 1 or over.n != row.completed else ""


def signed(number: str) -> str:
    """Return a formatted number with a typeset sign; zero has none."""
    if not any(digit in number for digit in "123456789"):
        return number.removeprefix("-")
    return number.replace("-", "−") if number.startswith("-") else f"+{number}"


def one_line(text: str) -> str:
    """Return `text` without line breaks and control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
