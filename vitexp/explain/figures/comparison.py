"""Two runs side by side: where both, one or neither is right, and what each takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures.style import (
    MARGIN,
    SMALL_SIZE,
    STYLE,
    TEXT_SIZE,
    TITLE_HEIGHT,
    WIDTH,
    columns_in,
    finish,
    new_figure,
    one_line,
    place,
    wrap_each,
)

_LISTED: Final = 15
_NAMES: Final = 3.6  # inches
_LINE: Final = 0.3
_RUN: Final = 22  # letters of a name of a run


def paired_confusions(
    *,
    truth: NDArray[np.integer],
    predicted: tuple[NDArray[np.integer], NDArray[np.integer]],
    class_names: Sequence[str],
    runs: tuple[str, str],
) -> Figure:
    """The most frequent confusions of two runs on the same images, as paired bars.

    Args:
        truth: labels [N].
        predicted: labels [N] of either run.
        runs: their names.

    Raises:
        ValueError: not as many predictions as labels, or none.
    """
    if not len(truth) or any(len(each) != len(truth) for each in predicted):
        raise ValueError(f"need as many predictions as labels, and at least one; got {len(truth)}")
    runs = one_line(runs[0], columns=_RUN), one_line(runs[1], columns=_RUN)
    right = [each == truth for each in predicted]
    counts = [_counts(truth, each, len(class_names)) for each in predicted]
    together = counts[0] + counts[1]
    order = [int(flat) for flat in np.argsort(-together, axis=None, kind="stable")[:_LISTED] if together.flat[flat]]
    both, neither = (right[0] & right[1]).mean(), (~right[0] & ~right[1]).mean()
    only = (right[0] & ~right[1]).mean(), (right[1] & ~right[0]).mean()
    words = (
        f"accuracy: {runs[0]} {right[0].mean():.2%}, {runs[1]} {right[1].mean():.2%}",
        f"both right {both:.2%}, only {runs[0]} {only[0]:.2%}, only {runs[1]} {only[1]:.2%}, neither {neither:.2%}",
    )
    lines = wrap_each("\n".join(words), columns=columns_in(WIDTH - 2 * MARGIN, TEXT_SIZE))
    height = max(len(order), 1) * _LINE
    top = TITLE_HEIGHT + 0.39 + 0.18 * (lines.count("\n") + 1)
    figure = new_figure(height=top + height + 0.45, title=f"Confusions of two runs on {len(truth):,} images")
    y = 1 - TITLE_HEIGHT / figure.get_size_inches()[1]
    figure.text(MARGIN / WIDTH, y, lines, va="top", fontsize=TEXT_SIZE, color=STYLE["ink"], linespacing=1.4)
    axes = place(figure, left=_NAMES, top=top, width=WIDTH - _NAMES - MARGIN - 0.2, height=height)
    where = np.arange(len(order))
    for run, (name, colour, shift) in enumerate(zip(runs, ("train", "val"), (-0.19, 0.19), strict=True)):
        lengths = [int(counts[run].flat[flat]) for flat in order]
        bars = axes.barh(where + shift, lengths, height=0.36, color=STYLE[colour], label=name)
        axes.bar_label(bars, fontsize=SMALL_SIZE, color=STYLE["muted"], padding=2)
    axes.set_yticks(
        where, [_confusion(*(class_names[label] for label in divmod(flat, len(class_names)))) for flat in order]
    )
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlabel("images", fontsize=SMALL_SIZE, color=STYLE["muted"])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(STYLE["rule"])
    axes.tick_params(labelsize=SMALL_SIZE, labelcolor=STYLE["ink"], color=STYLE["rule"])
    axes.tick_params(axis="y", length=0)
    axes.set_title("true → predicted", loc="left", x=-0.02, ha="right", fontsize=SMALL_SIZE, color=STYLE["muted"])
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.05, 1),
        ncols=2,
        fontsize=SMALL_SIZE,
        frameon=False,
        labelcolor=STYLE["ink"],
        handlelength=1.0,
        handletextpad=0.4,
        columnspacing=1.0,
    )
    return finish(figure)


def _confusion(true: str, taken: str) -> str:
    """Both names on one line; one that is short leaves its place to the other."""
    letters = columns_in(_NAMES - 0.2, SMALL_SIZE) - 3
    half = letters // 2
    first = one_line(true, columns=max(half, letters - len(taken)))
    return f"{first} → {one_line(taken, columns=max(half, letters - len(first)))}"


def _counts(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Of confusions alone: int64 [classes, classes], the diagonal 0."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    np.fill_diagonal(counts, 0)
    return counts
