"""The table as a picture: every row's mean and seeds, and its difference to the baseline with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from vitexp.sweeps.tables.cells import BEST, SPLITS, one_line
from vitexp.sweeps.tables.statistics import CONFIDENCE
from vitexp.sweeps.tables.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# As the figures of a run: blue and orange stay apart for colour-blind eyes (after Okabe and Ito 2008). What they say,
# filling and shape say too.
INK: Final = "#22272e"
MUTED: Final = "#66707c"
RULE: Final = "#d9dde2"
EMPTY: Final = "#eef0f2"
BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
# Inches.
_WIDTH: Final = 7.2
_ROW: Final = 0.3
# Taller pictures are read by nobody.
MOST_ROWS: Final = 60


def draw(table: Table, target: Path | BinaryIO) -> None:
    """Draw `table` into a PNG file, or whatever the ending of `target` asks for.

    A table of more than MOST_ROWS shows the best of them by validation, and the baseline.

    Raises:
        ValueError: no trial has a value yet.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    rows = _drawn(table)
    if not any(row.summary(table.compared) for row in rows):
        raise ValueError("there is nothing to draw: no trial has a value yet")
    compares = any(row.difference for row in rows)
    figure = Figure(figsize=(_WIDTH, _ROW * len(rows) + 1.25), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    title = one_line(table.title) + (f": {len(rows)} of {len(table.rows)} rows" if len(rows) < len(table.rows) else "")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    axes = figure.subplots(1, 2 if compares else 1, sharey=True, squeeze=False)[0]
    _draw_means(axes[0], table, rows)
    if compares:
        _draw_differences(axes[1], table, rows)
    for part in axes:
        dress(part)
    axes[0].set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=9, color=INK)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)  # a dollar in a name is a dollar
    figure.savefig(target)


def _drawn(table: Table) -> Sequence[Row]:
    if len(table.rows) <= MOST_ROWS:
        return table.rows
    gains = {row.name: table.metric.gain(row.val.mean) for row in table.rows if row.val and not row.is_baseline}
    chosen = set(sorted(gains, key=gains.__getitem__)[1 - MOST_ROWS :])
    return [row for row in table.rows if row.is_baseline or row.name in chosen]


def _draw_means(axes: Axes, table: Table, rows: Sequence[Row]) -> None:
    """The mean as a dot, below it the seeds as small ones; the baseline's mean as a line through all rows."""
    scale = 100 if table.metric.is_fraction else 1
    baseline = table.baseline.summary(table.compared)
    if baseline:
        axes.axvline(scale * baseline.mean, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for y, row in enumerate(rows):
        values = [scale * value for value in row.values(table.compared, table.metric).values()]
        axes.plot(values, [y + 0.3] * len(values), "o", markersize=3, color=MUTED, zorder=2)
        if summary := row.summary(table.compared):
            axes.plot(scale * summary.mean, y, _marker(row), markersize=7, color=BLUE, zorder=3)
    unit = " (%)" if table.metric.is_fraction else ""
    axes.set_title(f"{SPLITS[table.compared]} {table.metric.label}{unit}", loc="left", fontsize=9, color=INK)
    axes.set_xlabel("small: seeds, dashed: baseline", loc="left", fontsize=8, color=MUTED)


def _draw_differences(axes: Axes, table: Table, rows: Sequence[Row]) -> None:
    """Dots with intervals, filled where significant; the baseline is at zero."""
    scale = 100 if table.metric.is_fraction else 1
    axes.axvline(0, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for y, row in enumerate(rows):
        if row.is_baseline:
            axes.plot(0, y, _marker(row), markersize=7, color=BLUE, zorder=3)
        if not row.difference:
            continue
        low, high = row.difference.low, row.difference.high
        if low is not None and high is not None:
            axes.plot([scale * low, scale * high], [y, y], "-", color=ORANGE, linewidth=1.8, zorder=2)
        face = ORANGE if row.is_significant else "white"
        axes.plot(scale * row.difference.mean, y, "o", markersize=7, color=ORANGE, markerfacecolor=face, zorder=3)
    unit = " (points)" if table.metric.is_fraction else ""
    axes.set_title(f"difference{unit}, {CONFIDENCE:.0%} interval", loc="left", fontsize=9, color=INK)
    axes.set_xlabel("filled: significant (Holm)", loc="left", fontsize=8, color=MUTED)


def _marker(row: Row) -> str:
    return "D" if row.is_baseline else "o"


def dress(axes: Axes) -> None:
    """Give `axes` the looks of all figures here."""
    axes.grid(axis="x", color=EMPTY, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(labelsize=8, labelcolor=MUTED, color=RULE)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.08)


def _name(row: Row) -> str:
    name = one_line(row.name)
    name = name if len(name) <= 32 else name[:31] + "…"
    return f"{name} {BEST}" if row.is_best else name
