"""The reliability diagram: whether images predicted with 80 % confidence are right in 80 % of the cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from vitexp.explain.figures.style import (
    MARGIN,
    SMALL_SIZE,
    STYLE,
    TEXT_SIZE,
    TITLE_HEIGHT,
    WIDTH,
    bare,
    finish,
    new_figure,
    place,
)

# Inches.
_LEFT, _GAP, _RIGHT, _FOOT, _HISTOGRAM = 0.72, 0.35, 0.25, 0.45, 0.8
_HEAD = TITLE_HEIGHT + 0.5  # title, legend, titles of the panels
_DASHES: Final = (0, (4, 3))
_SIDE = (WIDTH - _LEFT - _GAP - _RIGHT) / 2


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
    height = _HEAD + _SIDE + 0.15 + _HISTOGRAM + _FOOT
    figure = new_figure(height=height, title=title)
    key = [
        Line2D([], [], color=STYLE["muted"], linewidth=1, linestyle=_DASHES, label="confidence equals accuracy"),
        Line2D([], [], color=STYLE["wrong"], linewidth=2, label="from accuracy to mean confidence"),
        Patch(color=STYLE["train"], label="accuracy (paler where images are few)"),
    ]
    figure.legend(
        handles=key,
        ncols=3,
        loc="upper left",
        bbox_to_anchor=(0, 1 - (TITLE_HEIGHT - 0.05) / height),
        frameon=False,
        fontsize=SMALL_SIZE,
        labelcolor=STYLE["ink"],
        borderaxespad=0.2,
        columnspacing=1.4,
        handlelength=1.6,
    )
    for number, panel in enumerate(panels):
        left = _LEFT + number * (_SIDE + _GAP)
        upper = place(figure, left=left, top=_HEAD, width=_SIDE, height=_SIDE)
        lower = place(figure, left=left, top=_HEAD + _SIDE + 0.15, width=_SIDE, height=_HISTOGRAM)
        _draw(upper, lower, panel, first=number == 0)
    return finish(figure)


def _draw(upper: Axes, lower: Axes, panel: ReliabilityPanel, *, first: bool) -> None:
    bins = len(panel.counts)
    filled = panel.counts > 0
    starts = np.arange(bins)[filled] / bins
    accuracy, confidence = panel.accuracy[filled], panel.confidence[filled]
    # Bins of few images say little: they are drawn paler.
    weight = np.clip(panel.counts[filled] / max(panel.counts.sum() / 100, 1), 0.35, 1)
    upper.plot([0, 1], [0, 1], color=STYLE["muted"], linewidth=1, linestyle=_DASHES, zorder=3)
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
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.tick_params(labelleft=first)
    upper.set_yticks(np.linspace(0, 1, 6))
    lower.set_yticks((0, 0.5, 1))
    upper.tick_params(labelbottom=False)
    if first:
        upper.set_ylabel("accuracy", fontsize=TEXT_SIZE, color=STYLE["muted"])
        lower.set_ylabel("images", fontsize=TEXT_SIZE, color=STYLE["muted"])


# Colours that stay apart for colour-blind eyes (Okabe and Ito 2008), and a marker each, which needs no colour.
_LINES: Final = (("#22272e", "o"), ("#0072b2", "s"), ("#d55e00", "^"), ("#00795c", "D"), ("#aa4499", "v"))
# Inches.
_CURVES, _CURVES_LEFT, _NAMES, _NAMES_GAP = 2.9, 0.68, 0.9, 0.05


def robustness_curves(
    *, clean: float, accuracy: Mapping[str, Sequence[float]], examples: NDArray[np.uint8], images: int
) -> Figure:
    """A line a corruption, from the images as they are to the worst severity; below, one image in all of them.

    Args:
        clean: accuracy on the images as they are, a fraction.
        accuracy: by corruption, at most five, for severities 1 to S.
        examples: uint8 [corruptions, 1 + S, H, W, 3].
        images: how many were measured.

    Raises:
        ValueError: the arguments do not fit each other.
    """
    severities = examples.shape[1] - 1
    if len(accuracy) != len(examples) or any(len(line) != severities for line in accuracy.values()):
        raise ValueError(f"examples of shape {examples.shape} for {len(accuracy)} corruptions")
    if len(accuracy) > len(_LINES):
        raise ValueError(f"at most {len(_LINES)} corruptions, not {len(accuracy)}")
    cell = (WIDTH - _NAMES - MARGIN - severities * _NAMES_GAP) / (1 + severities)
    top = TITLE_HEIGHT + _CURVES + 0.75
    height = top + len(examples) * (cell + _NAMES_GAP) + MARGIN
    mean = np.mean([list(line) for line in accuracy.values()])
    title = f"Accuracy {clean:.2%}, corrupted {mean:.2%} on average ({images:,} images)"
    figure = new_figure(height=height, title=title)
    axes = place(figure, left=_CURVES_LEFT, top=TITLE_HEIGHT, width=WIDTH - _CURVES_LEFT - 1.25, height=_CURVES)
    for (name, line), (colour, marker) in zip(accuracy.items(), _LINES, strict=False):
        axes.plot(range(severities + 1), [clean, *line], color=colour, marker=marker, markersize=5, label=name)
    axes.set(ylim=(0, 1.02))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xticks(range(severities + 1), ["as it is", *map(str, range(1, severities + 1))])
    axes.set_xlabel("severity", fontsize=TEXT_SIZE, color=STYLE["muted"])
    axes.set_ylabel("accuracy", fontsize=TEXT_SIZE, color=STYLE["muted"])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(color=STYLE["empty"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(STYLE["rule"])
    axes.tick_params(labelsize=SMALL_SIZE, labelcolor=STYLE["muted"], color=STYLE["rule"])
    axes.legend(
        frameon=False, fontsize=TEXT_SIZE, labelcolor=STYLE["ink"], loc="upper left", bbox_to_anchor=(1.01, 1.0)
    )
    for row, (name, pictures) in enumerate(zip(accuracy, examples, strict=True)):
        above = top + row * (cell + _NAMES_GAP)
        figure.text(
            MARGIN / WIDTH, 1 - (above + cell / 2) / height, name, va="center", fontsize=TEXT_SIZE, color=STYLE["ink"]
        )
        for column, picture in enumerate(pictures):
            shown = place(figure, left=_NAMES + column * (cell + _NAMES_GAP), top=above, width=cell, height=cell)
            bare(shown)
            shown.imshow(picture, interpolation="nearest" if picture.shape[0] <= 64 else "auto")
            if row == 0:
                words = f"severity {column}" if column else "as it is"
                shown.set_title(words, fontsize=SMALL_SIZE, color=STYLE["muted"], pad=3)
    return finish(figure)
