"""The confusion matrix, from two classes to a few hundred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from vitexp.explain.figures.style import (
    DPI,
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
    wrap,
    wrap_each,
)

# Up to here both axes carry names; beyond, the columns carry only the class's number.
_NAMED_COLUMNS: Final = 12
# Up to here every cell shows its count; beyond, only the confusions that are listed in words ...
_COUNTED_CELLS: Final = 20
# ... and beyond this a number would be too small to read, and a frame marks those cells instead.
_NUMBERED_CELLS: Final = 50
_LISTED: Final = 10
_LINE: Final = 0.175  # inches

_RIGHT: Final = LinearSegmentedColormap.from_list("right", ["#e3eef6", STYLE["train"]])
_WRONG: Final = LinearSegmentedColormap.from_list("wrong", ["#fdeee2", STYLE["val"], "#7a2f00"])
# Errors are small shares; the square root lets one percent be seen beside fifty.
_WRONG_SCALE: Final = PowerNorm(0.5, vmin=0, vmax=1)


@dataclass(frozen=True)
class _Confusion:
    true: int
    predicted: int
    count: int
    of: int


def confusion_matrix(*, counts: NDArray[np.integer], class_names: Sequence[str]) -> Figure:
    """Rows are true classes, columns predicted ones, colours the share of the row; the worst confusions in words.

    Args:
        counts: integers [C, C], `counts[true, predicted]`.
        class_names: C names.

    Raises:
        ValueError: `counts` is not square, or there are not as many names as classes.
    """
    classes = len(class_names)
    if counts.shape != (classes, classes):
        raise ValueError(f"counts has shape {counts.shape}, but there are {classes} class names")
    worst = _worst_confusions(counts)
    total = int(counts.sum())
    title = f"Accuracy {counts.trace() / total:.2%} on {total:,} images" if total else "No images"

    figure = new_figure(height=WIDTH, title=title, dpi=DPI if classes <= _NUMBERED_CELLS else 220)
    axes = place(figure, left=0, top=0, width=WIDTH, height=WIDTH)
    _draw_matrix(axes, counts, class_names, worst)
    _arrange(finish(figure), axes, classes, list_height=(len(worst) + 1.7) * _LINE)
    _draw_list(figure, worst, class_names, errors=total - int(counts.trace()))
    return finish(figure)


def _arrange(figure: Figure, axes: Axes, classes: int, *, list_height: float) -> None:
    """Give the matrix all the room that its labels leave, and the figure the height for it and the list below."""
    outer = axes.get_tightbbox()  # with the labels
    assert outer is not None
    box, dots = axes.get_window_extent(), figure.dpi
    left, below = (box.x0 - outer.x0) / dots + MARGIN, (box.y0 - outer.y0) / dots
    # Few classes need no large matrix.
    side = min(WIDTH - left - MARGIN, 1.6 + 0.35 * classes)
    height = TITLE_HEIGHT + side + below + _LINE + list_height + MARGIN
    figure.texts[0].set_y(1 - MARGIN / height)
    figure.set_size_inches(WIDTH, height)
    axes.set_position((left / WIDTH, 1 - (TITLE_HEIGHT + side) / height, side / WIDTH, side / height))


def _worst_confusions(counts: NDArray[np.integer]) -> list[_Confusion]:
    """The most frequent confusions, most frequent first; among equals the one that costs its class the larger share."""
    support = counts.sum(axis=1)
    confusions = [
        _Confusion(int(true), int(predicted), int(counts[true, predicted]), int(support[true]))
        for true, predicted in np.argwhere(counts > 0)
        if true != predicted
    ]
    return sorted(confusions, key=lambda c: (-c.count, c.of, c.true, c.predicted))[:_LISTED]


def _row_labels(names: Sequence[str]) -> list[str]:
    if len(names) <= _NAMED_COLUMNS:
        return [wrap(name, columns=18, lines=3) for name in names]
    return [f"{one_line(name, columns=52)}  {index}" for index, name in enumerate(names)]


def _label_size(labels: Sequence[str]) -> float:
    """Points: four fifths of a row's height, where labels and rows share the width of the figure."""
    longest = max(len(line) for label in labels for line in label.split("\n"))
    side = (WIDTH - 0.5) / (1 + 0.8 * 0.55 * longest / len(labels))
    return min(0.8 * 72 * side / len(labels), SMALL_SIZE)


def _draw_matrix(axes: Axes, counts: NDArray[np.integer], names: Sequence[str], worst: Sequence[_Confusion]) -> None:
    classes = len(names)
    support = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(support, 1)
    diagonal = np.eye(classes, dtype=bool)
    axes.imshow(np.ma.masked_where(~diagonal | (support == 0), share), cmap=_RIGHT, vmin=0, vmax=1)
    axes.imshow(np.ma.masked_where(diagonal | (counts == 0), share), cmap=_WRONG, norm=_WRONG_SCALE)

    rows = _row_labels(names)
    label_size = _label_size(rows)
    columns = rows if classes <= _NAMED_COLUMNS else [str(index) for index in range(classes)]
    upright = classes > 25 or (classes <= _NAMED_COLUMNS and max(map(len, columns)) > 60 / classes)
    axes.set_yticks(range(classes), rows, fontsize=label_size, color=STYLE["ink"])
    axes.set_xticks(range(classes), columns, fontsize=label_size, color=STYLE["ink"], rotation=90 * upright)
    axes.set_xlabel("predicted", fontsize=TEXT_SIZE, color=STYLE["muted"])
    axes.set_ylabel("true", fontsize=TEXT_SIZE, color=STYLE["muted"])
    axes.spines[:].set_color(STYLE["rule"])
    # Thin lines between the cells lead the eye from a cell to its names.
    between, ends = np.arange(0.5, classes - 1), (-0.5, classes - 0.5)
    width = 0.8 if classes <= _COUNTED_CELLS else 0.3
    axes.hlines(between, *ends, color=STYLE["empty"], linewidth=width)
    axes.vlines(between, *ends, color=STYLE["empty"], linewidth=width)
    axes.tick_params(length=0)

    if classes > _NUMBERED_CELLS:
        for confusion in worst:
            corner = (confusion.predicted - 1, confusion.true - 1)
            axes.add_patch(Rectangle(corner, 2, 2, fill=False, edgecolor=STYLE["ink"], linewidth=0.8))
        return
    cells = np.argwhere(counts > 0) if classes <= _COUNTED_CELLS else [(c.true, c.predicted) for c in worst]
    # With many classes a cell is hardly wider than its number.
    shrink = 1.0 if classes <= _NAMED_COLUMNS else min(0.85, 2.4 / len(str(counts.max())))
    for true, predicted in cells:
        dark = share[true, predicted] > (0.5 if true == predicted else 0.25)
        axes.text(
            predicted,
            true,
            f"{counts[true, predicted]}",
            ha="center",
            va="center",
            fontsize=label_size * shrink,
            color="white" if dark else STYLE["ink"],
        )


def _draw_list(figure: Figure, worst: Sequence[_Confusion], names: Sequence[str], *, errors: int) -> None:
    """The worst confusions in words, at the foot of the figure."""
    height = figure.get_size_inches()[1]
    # Two names a line, and the room that the counts take.
    columns = columns_in((WIDTH - 1.3) / 2, SMALL_SIZE)
    lines = [
        f"{one_line(names[c.true], columns=columns)} → {one_line(names[c.predicted], columns=columns)}, "
        f"{c.count:,} of {c.of:,}"
        for c in worst
    ]
    heading = f"Most frequent of the {errors:,} confusions: true → predicted" if errors else "No confusions"
    x = MARGIN / WIDTH
    y = (MARGIN + (len(lines) + 0.4) * _LINE) / height
    figure.text(x, y, heading, va="bottom", fontsize=TEXT_SIZE, color=STYLE["ink"])
    for line, words in enumerate(reversed(lines)):
        y = (MARGIN + line * _LINE) / height
        figure.text(x, y, words, va="bottom", fontsize=SMALL_SIZE, color=STYLE["muted"])


_PAIRS_LISTED: Final = 15
_NAMES: Final = 3.6  # inches
_PAIR_LINE: Final = 0.3
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
    counts = [confusion_counts(each, truth, len(class_names)) for each in predicted]
    for each in counts:
        np.fill_diagonal(each, 0)
    together = counts[0] + counts[1]
    order = [
        int(flat) for flat in np.argsort(-together, axis=None, kind="stable")[:_PAIRS_LISTED] if together.flat[flat]
    ]
    both, neither = (right[0] & right[1]).mean(), (~right[0] & ~right[1]).mean()
    only = (right[0] & ~right[1]).mean(), (right[1] & ~right[0]).mean()
    words = (
        f"accuracy: {runs[0]} {right[0].mean():.2%}, {runs[1]} {right[1].mean():.2%}",
        f"both right {both:.2%}, only {runs[0]} {only[0]:.2%}, only {runs[1]} {only[1]:.2%}, neither {neither:.2%}",
    )
    lines = wrap_each("\n".join(words), columns=columns_in(WIDTH - 2 * MARGIN, TEXT_SIZE))
    height = max(len(order), 1) * _PAIR_LINE
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


def confusion_counts(predicted: NDArray[np.integer], labels: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Return `counts[true, predicted]`, int64 [C, C], from labels [N]."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts
