"""Calibration and robustness: the reliability diagram, and accuracy on corrupted images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from vitexp.explain.figures import style

# Inches. Reliability diagram:
_LEFT, _GAP, _RIGHT, _FOOT, _HISTOGRAM = 0.72, 0.35, 0.25, 0.45, 0.8
_HEAD: Final = style.TITLE_HEIGHT + 0.5  # title, legend, titles of the panels
_SIDE: Final = (style.WIDTH - _LEFT - _GAP - _RIGHT) / 2
# Robustness curves:
_CURVES, _CURVES_LEFT, _NAMES, _NAMES_GAP = 2.9, 0.68, 0.9, 0.05
# Colors that color-blind readers can tell apart (Okabe and Ito 2008), and a marker each.
_LINES: Final = ((style.INK, "o"), ("#0072b2", "s"), ("#d55e00", "^"), ("#00795c", "D"), ("#aa4499", "v"))


@dataclass(frozen=True, kw_only=True)
class ReliabilityPanel:
    """One half of the figure.

    accuracy, confidence: [bins], means of each bin, NaN if it is empty; counts: [bins]. The bins have equal widths and
    cover [0, 1].
    """

    title: str
    accuracy: NDArray[np.floating]
    confidence: NDArray[np.floating]
    counts: NDArray[np.integer]


def reliability_diagram(*, panels: list[ReliabilityPanel], title: str) -> Figure:
    """Draw accuracy over confidence, and below it the images per bin; one or two panels side by side.

    If the model is calibrated, 80 % of the images predicted with 80 % confidence are correct.

    Raises ValueError unless there are one or two panels.
    """
    if len(panels) not in (1, 2):
        raise ValueError(f"need one or two panels, not {len(panels)}")
    height = _HEAD + _SIDE + 0.15 + _HISTOGRAM + _FOOT
    figure = style.new_figure(height=height, title=title)
    key = [
        Line2D([], [], color=style.MUTED, linewidth=1, linestyle=style.DASHES, label="confidence equals accuracy"),
        Line2D([], [], color=style.RED, linewidth=2, label="from accuracy to mean confidence"),
        Patch(color=style.BLUE, label="accuracy (paler for few images)"),
    ]
    figure.legend(
        handles=key,
        ncols=3,
        loc="upper left",
        bbox_to_anchor=(0, 1 - (style.TITLE_HEIGHT - 0.05) / height),
        frameon=False,
        fontsize=style.SMALL_SIZE,
        labelcolor=style.INK,
        borderaxespad=0.2,
        columnspacing=1.4,
        handlelength=1.6,
    )
    most = max(float(panel.counts.max() / panel.counts.sum()) for panel in panels)  # one scale for both panels
    for number, panel in enumerate(panels):
        left = _LEFT + number * (_SIDE + _GAP)
        upper = style.place(figure, left=left, top=_HEAD, width=_SIDE, height=_SIDE)
        lower = style.place(figure, left=left, top=_HEAD + _SIDE + 0.15, width=_SIDE, height=_HISTOGRAM)
        _draw_panel(upper, lower, panel, first=number == 0)
        lower.set_ylim(0, 1.1 * most)
    return style.finish(figure)


def _draw_panel(upper: Axes, lower: Axes, panel: ReliabilityPanel, *, first: bool) -> None:
    bins = len(panel.counts)
    filled = panel.counts > 0
    starts = np.arange(bins)[filled] / bins
    accuracy, confidence = panel.accuracy[filled], panel.confidence[filled]
    # Bins of few images carry little information: they are paler, so that a line from 0 to the confidence of one
    # wrong image does not stand out.
    weight = np.clip(panel.counts[filled] / max(panel.counts.sum() / 100, 1), 0.35, 1)
    upper.plot([0, 1], [0, 1], color=style.MUTED, linewidth=1, linestyle=style.DASHES, zorder=3)
    for start, right, said, alpha in zip(starts, accuracy, confidence, weight, strict=True):
        upper.bar(start, right, width=1 / bins, align="edge", color=style.BLUE, alpha=alpha, edgecolor="white")
        middle = start + 0.5 / bins
        red = {"color": style.RED, "alpha": alpha, "zorder": 4}
        upper.plot([middle, middle], [right, said], linewidth=2, solid_capstyle="butt", **red)
        upper.plot(middle, said, marker="_", markersize=7, markeredgewidth=1.6, **red)
    upper.set(xlim=(0, 1), ylim=(0, 1))
    upper.set_title(panel.title, loc="left", fontsize=style.TEXT_SIZE, color=style.INK)
    shares = panel.counts[filled] / panel.counts.sum()
    lower.bar(starts, shares, width=1 / bins, align="edge", color=style.MUTED, edgecolor="white")
    lower.set(xlim=(0, 1))
    lower.set_xlabel("confidence", fontsize=style.TEXT_SIZE, color=style.MUTED)
    for axes in (upper, lower):
        style.dress(axes, grid=True)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if axes is upper else None))
        axes.tick_params(labelleft=first)
    upper.set_yticks(np.linspace(0, 1, 6))
    lower.yaxis.set_major_locator(MaxNLocator(3, steps=(1, 2, 5, 10)))
    upper.tick_params(labelbottom=False)
    if first:
        upper.set_ylabel("accuracy", fontsize=style.TEXT_SIZE, color=style.MUTED)
        lower.set_ylabel("images", fontsize=style.TEXT_SIZE, color=style.MUTED)


def robustness_curves(
    *, clean: float, accuracy: Mapping[str, Sequence[float]], examples: NDArray[np.uint8], images: int, of: int
) -> Figure:
    """Draw one line per corruption, from clean images to the highest severity, and examples of each below.

    Bands are 95 % intervals of the accuracy.

    Args:
        clean: accuracy on clean images, in [0, 1].
        accuracy: for each of at most five corruptions, the accuracy at severities 1 to S.
        examples: uint8 [corruptions, 1 + S, H, W, 3].
        images, of: number of test images that were measured, and of all test images.

    Raises:
        ValueError: the arguments do not match.
    """
    severities = examples.shape[1] - 1
    if len(accuracy) != len(examples) or any(len(line) != severities for line in accuracy.values()):
        raise ValueError(f"examples of shape {examples.shape} do not fit {len(accuracy)} corruptions")
    if len(accuracy) > len(_LINES):
        raise ValueError(f"at most {len(_LINES)} corruptions, not {len(accuracy)}")
    cell = (style.WIDTH - _NAMES - style.MARGIN - severities * _NAMES_GAP) / (1 + severities)
    top = style.TITLE_HEIGHT + _CURVES + 0.75
    mean = np.mean([list(line) for line in accuracy.values()])
    figure = style.new_figure(
        height=top + len(examples) * (cell + _NAMES_GAP) + style.MARGIN,
        title=f"Accuracy {clean:.2%}, corrupted {mean:.2%} on average",
    )
    width = style.WIDTH - _CURVES_LEFT - 1.25
    axes = style.place(figure, left=_CURVES_LEFT, top=style.TITLE_HEIGHT, width=width, height=_CURVES)
    for (name, line), (color, marker) in zip(accuracy.items(), _LINES, strict=False):
        shares = np.array([clean, *line])
        low, high = _wilson(shares, images)
        axes.fill_between(range(severities + 1), low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(range(severities + 1), shares, color=color, marker=marker, markersize=5, label=name)
    axes.set(ylim=(0, 1.02))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xticks(range(severities + 1), ["clean", *map(str, range(1, severities + 1))])
    measured = f"all {of:,}" if images == of else f"{images:,} of {of:,}"
    words = f"severity ({measured} test images; shaded: 95% interval)"
    axes.set_xlabel(words, fontsize=style.TEXT_SIZE, color=style.MUTED)
    axes.set_ylabel("accuracy", fontsize=style.TEXT_SIZE, color=style.MUTED)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    style.dress(axes, grid=True)
    axes.legend(
        frameon=False, fontsize=style.TEXT_SIZE, labelcolor=style.INK, loc="upper left", bbox_to_anchor=(1.01, 1.0)
    )
    for row, (name, pictures) in enumerate(zip(accuracy, examples, strict=True)):
        above = top + row * (cell + _NAMES_GAP)
        style.write(figure, name, top=above + cell / 2, size=style.TEXT_SIZE, color=style.INK, va="center")
        for column, picture in enumerate(pictures):
            left = _NAMES + column * (cell + _NAMES_GAP)
            shown = style.place_bare(figure, left=left, top=above, width=cell, height=cell)
            style.show_image(shown, picture)
            if row == 0:
                words = f"severity {column}" if column else "clean"
                shown.set_title(words, fontsize=style.SMALL_SIZE, color=style.MUTED, pad=3)
    return style.finish(figure)


def _wilson(shares: NDArray[np.floating], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the 95 % interval of each share of `count` images.

    Unlike mean ± deviation, it stays in [0, 1] and has a width at 0 and 1 (Wilson 1927, Probable inference).
    """
    z = 1.96
    middle = (shares + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(shares * (1 - shares) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return np.asarray(middle - half), np.asarray(middle + half)
