"""The table as a figure: mean and trials of every row, and its difference from the baseline with the interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitexp.explain.figures import model_comparison, style
from vitexp.explain.figures.style import BLUE, DASHES, EMPTY, INK, MUTED, ORANGE, SMALL_SIZE, TEXT_SIZE, TITLE_HEIGHT
from vitexp.runs.comparison import history
from vitexp.sweeps.tables.cells import BEST, SPLITS, one_line
from vitexp.sweeps.tables.statistics import CONFIDENCE, Difference
from vitexp.sweeps.tables.table import Row, Table

_ROW: Final = 0.3  # inches
MOST_ROWS: Final = 60  # a taller figure would be unreadable
MOST_CURVES: Final = 8  # more colors look alike


def draw(table: Table, target: Path | BinaryIO) -> None:
    """Draw `table`, which must have values, into a PNG file.

    If there are more than MOST_ROWS rows, draw only the baseline and the best rows by validation.
    """
    rows = _drawn(table, MOST_ROWS)
    compares = any(row.difference for row in rows)
    has_steps = any(row.step for row in rows) and len(rows) == len(table.rows)
    title = one_line(table.title) + (f": {len(rows)} of {len(table.rows)} rows" if len(rows) < len(table.rows) else "")
    figure = constrained_figure(height=_ROW * len(rows) + 1.25, title=title)
    axes = figure.subplots(1, 1 + compares + has_steps, sharey=True, squeeze=False)[0]
    _draw_means(axes[0], table, rows)
    if compares:
        found = [(row.difference, row.is_significant) for row in rows]
        start = next((place for place, row in enumerate(rows) if row.is_baseline), None)
        _draw_differences(axes[1], table, found, start=start, title="vs. baseline", x_label="filled: significant")
    if has_steps:
        steps = [(row.step, False) for row in rows]
        _draw_differences(axes[-1], table, steps, start=0, title="vs. row above", x_label="not corrected")
    axes[0].set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=TEXT_SIZE, color=INK)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    style.finish(figure).savefig(target)


def constrained_figure(*, height: float, title: str) -> Figure:
    """Return a figure, `height` inches tall, that arranges its axes automatically below the title."""
    figure = style.new_figure(height=height, title=title)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - TITLE_HEIGHT / height))
    return figure


def dress(axes: Axes, *, title: str = "", x_label: str = "", grid: Literal["x", "both"] = "x") -> None:
    """Give the axes the common look, without the left spine and its ticks."""
    style.dress(axes, title=title)
    axes.set_xlabel(x_label, loc="left", fontsize=SMALL_SIZE, color=MUTED)
    axes.grid(axis=grid, color=EMPTY, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.08)


def draw_curves(table: Table, target: Path | BinaryIO) -> bool:
    """Draw the learning curves of all completed trials into a PNG file; return whether there are any.

    If there are more than MOST_CURVES rows, draw only the baseline and the best rows by validation.
    """
    rows = _drawn(table, MOST_CURVES)
    folders = {
        one_line(row.name): [trial.folder for trial in row.outcomes if trial.status == "completed"] for row in rows
    }
    histories = {name: [history(folder) for folder in chosen] for name, chosen in folders.items() if chosen}
    try:
        figure = model_comparison(histories=histories, title=f"Learning curves: {one_line(table.title)}")
    except ValueError:
        return False
    figure.savefig(target)
    return True


def _drawn(table: Table, most: int) -> Sequence[Row]:
    if len(table.rows) <= most:
        return table.rows
    gains = {row.name: table.metric.gain(row.val.mean) for row in table.rows if row.val and not row.is_baseline}
    chosen = set(sorted(gains, key=gains.__getitem__)[1 - most :])
    return [row for row in table.rows if row.is_baseline or row.name in chosen]


def _draw_means(axes: Axes, table: Table, rows: Sequence[Row]) -> None:
    """Draw each mean as a dot with its seeds or folds as small dots below, and the mean of the baseline as a line."""
    scale = 100 if table.metric.is_percent else 1
    baseline = table.baseline.summary(table.compared)
    if baseline:
        axes.axvline(scale * baseline.mean, color=MUTED, linewidth=0.9, linestyle=DASHES, zorder=1)
    for y, row in enumerate(rows):
        values = [scale * value for value in row.values(table.compared, table.key).values()]
        axes.plot(values, [y + 0.3] * len(values), "o", markersize=3, color=MUTED, zorder=2)
        if summary := row.summary(table.compared):
            axes.plot(scale * summary.mean, y, _marker(row), markersize=7, color=BLUE, zorder=3)
    unit = " (%)" if table.metric.is_percent else ""
    title = f"{SPLITS[table.compared]} {table.metric.label}{unit}"
    dress(axes, title=title, x_label=f"small: {table.repetitions}, dashed: baseline")


def _draw_differences(
    axes: Axes,
    table: Table,
    differences: Sequence[tuple[Difference | None, bool]],
    *,
    start: int | None,
    title: str,
    x_label: str,
) -> None:
    """Draw differences as dots with intervals, filled if they are marked. start: the row at zero."""
    scale = 100 if table.metric.is_percent else 1
    axes.axvline(0, color=MUTED, linewidth=0.9, linestyle=DASHES, zorder=1)
    if start is not None:
        axes.plot(0, start, "D", markersize=7, color=BLUE, zorder=3)
    for y, (difference, is_marked) in enumerate(differences):
        if not difference:
            continue
        low, high = difference.low, difference.high
        if low is not None and high is not None:
            axes.plot([scale * low, scale * high], [y, y], "-", color=ORANGE, linewidth=1.8, zorder=2)
        face = ORANGE if is_marked else "white"
        axes.plot(scale * difference.mean, y, "o", markersize=7, color=ORANGE, markerfacecolor=face, zorder=3)
    unit = " (points)" if table.metric.is_percent else ""
    dress(axes, title=f"{title}{unit}", x_label=f"{CONFIDENCE:.0%} intervals, {x_label}")


def _marker(row: Row) -> str:
    return "D" if row.is_baseline else "o"


def _name(row: Row) -> str:
    name = style.one_line(row.name, columns=32)
    return f"{name} {BEST}" if row.is_best else name
