"""The measurements of a subject, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from vitexp.text import format_value


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: one of the alternatives.

    rounds: the result of each round, in the unit of the subject. compared: the ratio or difference that
    `Subject.comparison_title` names; None: not compared. details: other numbers, not in the table; their names end in
    their unit.
    """

    name: str
    rounds: Sequence[float]
    compared: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The first quartile, the median and the third quartile of the rounds."""
        first, median, third = np.percentile(self.rounds, [25, 50, 75]).tolist()
        return first, median, third

    def as_json(self, comparison: str) -> dict[str, Any]:
        first, median, third = self.quartiles
        return {
            "name": self.name,
            "median": median,
            "quartiles": [first, third],
            comparison: self.compared,
            **self.details,
            "rounds": list(self.rounds),
        }


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The measurements of one subject: a row per alternative.

    unit: the unit of the rounds. comparison, comparison_title: the name of `Row.compared` in JSON and in the table.
    facts: numbers that belong to no row, not in the table; their names end in their unit, if they have one.
    lines: printed below the table.
    """

    title: str
    unit: str
    comparison: str
    comparison_title: str
    rows: Sequence[Row]
    facts: Mapping[str, float] = field(default_factory=dict)
    lines: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "unit": self.unit,
            "rows": [row.as_json(self.comparison) for row in self.rows],
            "facts": dict(self.facts),
        }

    def as_table(self) -> Table:
        table = Table(title=self.title, title_justify="left", caption="\n".join(self.lines), caption_justify="left")
        table.add_column("", no_wrap=True)
        for heading in (f"{self.unit}, median", "quartiles", self.comparison_title):
            table.add_column(heading, justify="right")
        for row in self.rows:
            first, median, third = row.quartiles
            compared = "" if row.compared is None else f"{row.compared:.2f}"
            table.add_row(row.name, format_value(median), f"{format_value(first)} to {format_value(third)}", compared)
        return table


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median over rounds of numerator / denominator; load that affects a whole round cancels out.

    numerators, denominators: one number per round, in the same order.
    """
    return float(np.median(np.divide(numerators, denominators)))
