"""What was measured: the numbers of a subject, as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from vitexp.text import format_value


@dataclass(frozen=True, kw_only=True)
class Row:
    """One of those that are compared.

    rounds: what each round gave, in the unit of the subject. compared: with the subject's reference, see there.
    details: other numbers of this row by name, with their units in the names.
    """

    name: str
    rounds: Sequence[float]
    compared: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median, third quartile."""
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
    """One table.

    unit: of the rows' rounds. comparison: the name of `Row.compared` in JSON; comparison_title: over its column.
    facts: numbers that belong to no row, with units in their names. lines: what people read beneath the table.
    """

    name: str
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
    """The median over the rounds of the ratio in a round: what slows a whole round down cancels out."""
    return float(np.median(np.divide(numerators, denominators)))
