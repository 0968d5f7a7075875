"""Accuracy over the severity of corruptions, with one image spoilt in all of these ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
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

# Colours that stay apart for colour-blind eyes (Okabe and Ito 2008), and a marker each, which needs no colour.
_LINES: Final = (("#22272e", "o"), ("#0072b2", "s"), ("#d55e00", "^"), ("#00795c", "D"), ("#aa4499", "v"))
# Inches.
_CURVES, _LEFT, _NAMES, _GAP = 2.9, 0.68, 0.9, 0.05


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
    cell = (WIDTH - _NAMES - MARGIN - severities * _GAP) / (1 + severities)
    top = TITLE_HEIGHT + _CURVES + 0.75
    height = top + len(examples) * (cell + _GAP) + MARGIN
    mean = np.mean([list(line) for line in accuracy.values()])
    title = f"Accuracy {clean:.2%}, corrupted {mean:.2%} on average ({images:,} images)"
    figure = new_figure(height=height, title=title)
    axes = place(figure, left=_LEFT, top=TITLE_HEIGHT, width=WIDTH - _LEFT - 1.25, height=_CURVES)
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
        above = top + row * (cell + _GAP)
        figure.text(
            MARGIN / WIDTH, 1 - (above + cell / 2) / height, name, va="center", fontsize=TEXT_SIZE, color=STYLE["ink"]
        )
        for column, picture in enumerate(pictures):
            shown = place(figure, left=_NAMES + column * (cell + _GAP), top=above, width=cell, height=cell)
            bare(shown)
            shown.imshow(picture, interpolation="nearest" if picture.shape[0] <= 64 else "auto")
            if row == 0:
                words = f"severity {column}" if column else "as it is"
                shown.set_title(words, fontsize=SMALL_SIZE, color=STYLE["muted"], pad=3)
    return finish(figure)
