"""The tables of an evaluation, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import table as rich_table

from vitexp.evaluate.latency import Latency
from vitexp.evaluate.per_class import ClassRow, Confusion
from vitexp.evaluate.robustness import SEVERITIES, Robustness
from vitexp.metrics import METRICS
from vitexp.text import format_value, markdown_table, plural


@dataclass(frozen=True)
class Table:
    """A title, a heading and rows of formatted cells; columns of numbers are right-aligned.

    text_columns: indices of the columns with text.
    """

    title: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: Sequence[int] = (0,)

    def rich(self, rows: int | None = None) -> rich_table.Table:
        """Return the table for the terminal. rows: maximum number of rows."""
        table = rich_table.Table(title=self.title, title_justify="left")
        for column, name in enumerate(self.heading):
            table.add_column(name, justify="left" if column in self.text_columns else "right")
        for row in self.rows[:rows]:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return the table as Markdown, without its title."""
        columns = range(len(self.heading))
        return markdown_table(
            self.heading, self.rows, ["left" if each in self.text_columns else "right" for each in columns]
        )


def metric_table(title: str, columns: Mapping[str, Mapping[str, float | None]]) -> Table:
    """List the metrics of each column."""
    rows = [
        [metric.label, *(metric.format(values.get(name)) for values in columns.values())]
        for name, metric in METRICS.items()
        if any(name in values for values in columns.values())
    ]
    return Table(title, ["metric", *columns], rows)


def class_table(rows: Sequence[ClassRow]) -> Table:
    """List the classes, lowest recall first."""
    heading = ("class", "images", "recall", "precision", "F1", "confidence", "most often confused with")
    cells = [
        [
            row.name,
            f"{row.images:,}",
            *map(_percent, (row.recall, row.precision, row.f1, row.confidence)),
            f"{row.most_confused_with} ({row.most_confused_count})" if row.most_confused_count else "",
        ]
        for row in sorted(rows, key=lambda row: (row.recall is None, row.recall))
    ]
    return Table("Classes", heading, cells, text_columns=(0, 6))


def confusion_table(confusions: Sequence[Confusion]) -> Table:
    """List confusions in the given order, with the percentage points of accuracy that each costs."""
    heading = ("true", "predicted", "images", "of the class", "accuracy points")
    cells = [
        [
            each.true,
            each.predicted,
            f"{each.count:,} of {each.of:,}",
            _percent(each.share_of_class),
            f"{100 * each.cost:.2f}",
        ]
        for each in confusions
    ]
    mistakes = sum(each.count for each in confusions)
    return Table(f"Most costly confusions among {plural(mistakes, 'mistake')}", heading, cells, text_columns=(0, 1))


def robustness_table(found: Robustness) -> Table:
    """List the accuracy by corruption and severity."""
    title = f"Accuracy on {found.images:,} corrupted images; {_percent(found.clean)} on the original ones"
    heading = ["corruption", *(f"severity {severity}" for severity in SEVERITIES), "mean"]
    means = found.means
    return Table(
        title, heading, [[name, *map(_percent, [*line, means[name]])] for name, line in found.accuracy.items()]
    )


def probe_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """List the accuracy of each probe of the frozen features."""
    cells = [
        [
            f"{probe['neighbors']} nearest training images" if kind == "knn" else "logistic regression",
            _percent(probe["test"]),
            _percent(probe["val"]),
        ]
        for kind, probe in found.items()
    ]
    return Table("Probes of the frozen features", ("probe", "test accuracy", "validation accuracy"), cells)


def latency_table(rows: Sequence[Latency], *, device: str, precision: str) -> Table:
    """List milliseconds per batch and images per second by batch size."""
    heading = ("batch size", "ms, median", "quartiles", "images/s")
    cells = [
        [
            str(row.batch_size),
            format_value(row.ms),
            " to ".join(map(format_value, row.ms_quartiles)),
            format_value(row.images_per_s),
        ]
        for row in rows
    ]
    return Table(f"Latency on {device}, {precision}", heading, cells, text_columns=())


def _percent(fraction: float | None) -> str:
    return METRICS["accuracy"].format(fraction)
