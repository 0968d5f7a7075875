"""The reliability diagram: whether images predicted with 80 % confidence are right in 80 % of the cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter
from numpy.typing import NDArray

from vitexp.explain.figures.style import (
    MARGIN,
    SMALL_SIZE,
    STYLE,
    TEXT_SIZE,
    TITLE_HEIGHT,
    WIDTH,
    finish,
    new_figure,
    place,
)

# Inches.
_LEFT, _GAP, _FOOT, _HISTOGRAM = 0.55, 0.35, 0.45, 0.8
_SIDE = (WIDTH - _LEFT - _GAP - 2 * MARGIN) / 2


@dataclass(frozen=True, kw_only=True)
class ReliabilityPanel:
    """One half of the figure.

    accuracy, confidence: [bins], means of each bin, NaN where it is empty; counts: [bins]. The bins are equally wide
    and cover [0, 1].
    """

    title: str
    accuracy: NDArray[np.floating]
    confidence: NDArray[np.floating]
    counts: NDArray[np.integer]


def reliability_diagram(*, panels: list[ReliabilityPanel], title: str) -> Figure:
    """Accuracy over confidence, and beneath how many images are in each bin; one or two panels side by side.

    Raises ValueError for another number of panels.
    """
    if len(panels) not in (1, 2):
        raise ValueError(f"one or two panels, not {len(panels)}")
    height = TITLE_HEIGHT + 0.3 + _SIDE + 0.15 + _HISTOGRAM + _FOOT
    figure = new_figure(height=height, title=title)
    for number, panel in enumerate(panels):
        left = _LEFT + number * (_SIDE + _GAP)
        top = TITLE_HEIGHT + 0.3
        upper = place(figure, left=left, top=top, width=_SIDE, height=_SIDE)
        lower = place(figure, left=left, top=top + _SIDE + 0.15, width=_SIDE, height=_HISTOGRAM)
        _draw(upper, lower, panel, first=number == 0)
    return finish(figure)


def _draw(upper: Axes, lower: Axes, panel: ReliabilityPanel, *, first: bool) -> None:
    bins = len(panel.counts)
    filled = panel.counts > 0
    starts = np.arange(bins)[filled] / bins
    accuracy, confidence = panel.accuracy[filled], panel.confidence[filled]
    # Bins of few images say little: they are drawn paler.
    weight = np.clip(panel.counts[filled] / max(panel.counts.sum() / 100, 1), 0.35, 1)
    upper.plot([0, 1], [0, 1], color=STYLE["muted"], linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    for start, right, said, alpha in zip(starts, accuracy, confidence, weight, strict=True):
        upper.bar(start, right, width=1 / bins, align="edge", color=STYLE["train"], alpha=alpha, edgecolor="white")
        middle = start + 0.5 / bins
        upper.plot([middle, middle], [right, said], color=STYLE["wrong"], linewidth=2, solid_capstyle="butt", zorder=4)
        upper.plot(middle, said, marker="_", markersize=7, color=STYLE["wrong"], markeredgewidth=1.6, zorder=4)
    upper.set_title(panel.title, loc="left", fontsize=TEXT_SIZE, color=STYLE["ink"])
    upper.set(xlim=(0, 1), ylim=(0, 1))
    lower.bar(
        starts,
        panel.counts[filled] / panel.counts.sum(),
        width=1 / bins,
        align="edge",
        color=STYLE["muted"],
        edgecolor="white",
    )
    lower.set(xlim=(0, 1), ylim=(0, 1))
    lower.set_xlabel("confidence", fontsize=TEXT_SIZE, color=STYLE["muted"])
    for axes in (upper, lower):
        axes.grid(color=STYLE["empty"], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(STYLE["rule"])
        axes.tick_params(labelsize=SMALL_SIZE, labelcolor=STYLE["muted"], color=STYLE["rule"])
        axes.xaxis.set_major_locator(MultipleLocator(0.2))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.tick_params(labelleft=first)
    upper.yaxis.set_major_locator(MultipleLocator(0.2))
    lower.yaxis.set_major_locator(MultipleLocator(0.5))
    upper.tick_params(labelbottom=False)
    if first:
        upper.set_ylabel("accuracy", fontsize=TEXT_SIZE, color=STYLE["muted"])
        lower.set_ylabel("images", fontsize=TEXT_SIZE, color=STYLE["muted"])
        # One legend is enough; the upper left corner is empty unless a net doubts itself without reason.
        upper.plot([], [], color=STYLE["muted"], linewidth=1, linestyle=(0, (4, 3)), label="ideal")
        upper.plot([], [], color=STYLE["wrong"], linewidth=2, label="confidence, and its gap to the accuracy")
        upper.legend(frameon=False, fontsize=SMALL_SIZE, labelcolor=STYLE["ink"], loc="upper left")
