"""Confusions: the matrix, from two classes to a few hundred, and the most frequent ones of two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from vitexp.explain.figures import style
from vitexp.text import plural

# Matrix: up to this many classes both axes carry names; with more, columns carry only the number of the class.
_NAMED_COLUMNS: Final = 12
# Up to this many classes every cell shows its count; with more, only the confusions that are also listed in words and
# those of at least this share of their class, so that no dark cell lacks its number ...
_COUNTED_CELLS: Final = 20
_COUNTED_SHARE: Final = 0.1
# ... and with more than this, a number would be too small to read, and a frame marks those cells instead.
_NUMBERED_CELLS: Final = 50
_LISTED: Final = 10
_LINE: Final = 0.175  # inches
_SCALES: Final = 0.42  # inches, between title and matrix
_RIGHT: Final = LinearSegmentedColormap.from_list("right", ["#e3eef6", style.BLUE])
_WRONG: Final = LinearSegmentedColormap.from_list("wrong", ["#fdeee2", style.ORANGE, "#7a2f00"])
# Error rates are small; the square root makes one percent visible next to fifty.
_RIGHT_SCALE: Final = Normalize(0, 1)
_WRONG_SCALE: Final = PowerNorm(0.5, vmin=0, vmax=1)

# Two runs.
_PAIRS_OF_EACH: Final = 8
_NAMES: Final = 3.6  # inches
_PAIR_LINE: Final = 0.3  # inches
_RUN: Final = 22  # letters in the name of a run


@dataclass(frozen=True)
class _Confusion:
    true: int
    predicted: int
    count: int
    of: int


def confusion_counts(predicted: NDArray[np.integer], labels: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Return `counts[true, predicted]`, int64 [classes, classes], of labels [N]."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


# --- matrix ----------------------------------------------------------------------------------------------------------


def confusion_matrix(*, counts: NDArray[np.integer], class_names: Sequence[str], part: str = "") -> Figure:
    """Draw the confusion matrix, colored by the share of each row, and list the most frequent confusions.

    Cells without images are white.

    Args:
        counts: integers [C, C], `counts[true, predicted]`.
        class_names: C names.
        part: "test" or "validation", for the title.

    Raises:
        ValueError: `counts` does not fit `class_names`.
    """
    classes = len(class_names)
    if counts.shape != (classes, classes):
        raise ValueError(f"counts has shape {counts.shape}, but there are {classes} class names")
    worst = _worst_confusions(counts)
    # As many images as the last of the list, but not in it.
    tied = int(((counts == worst[-1].count) & ~np.eye(classes, dtype=bool)).sum()) if worst else 0
    tied -= sum(each.count == worst[-1].count for each in worst)
    total = int(counts.sum())
    which = f"{total:,} {part} images" if part else f"{total:,} images"
    title = f"Accuracy {counts.trace() / total:.2%} on {which}" if total else "No images"

    figure = style.new_figure(height=style.WIDTH, title=title, dpi=style.DPI if classes <= _COUNTED_CELLS else 220)
    axes = style.place(figure, left=0, top=0, width=style.WIDTH, height=style.WIDTH)
    _draw_matrix(axes, counts, class_names)
    _arrange(style.finish(figure), axes, classes, list_height=(len(worst) + bool(tied) + 1.7) * _LINE)
    # Now that the size of a cell is known.
    if classes <= _NUMBERED_CELLS:
        _number_cells(axes, counts, least=worst[-1].count if worst and tied <= _LISTED else None, listed=worst)
    else:
        _frame_cells(axes, worst)
    _draw_scales(figure)
    _draw_list(figure, worst, class_names, errors=total - int(counts.trace()), tied=tied)
    return style.finish(figure)


def _arrange(figure: Figure, axes: Axes, classes: int, *, list_height: float) -> None:
    """Fit the matrix into the space that its labels leave, and the height of the figure to matrix and list."""
    outer = axes.get_tightbbox()  # with the labels
    assert outer is not None
    box, dots = axes.get_window_extent(), figure.dpi
    left, below = (box.x0 - outer.x0) / dots + style.MARGIN, (box.y0 - outer.y0) / dots
    # A few classes do not need a large matrix.
    side = min(style.WIDTH - left - style.MARGIN, 1.6 + 0.35 * classes)
    top = style.TITLE_HEIGHT + _SCALES
    height = top + side + below + _LINE + list_height + style.MARGIN
    figure.texts[0].set_y(1 - style.MARGIN / height)
    figure.set_size_inches(style.WIDTH, height)
    axes.set_position((left / style.WIDTH, 1 - (top + side) / height, side / style.WIDTH, side / height))


def _worst_confusions(counts: NDArray[np.integer]) -> list[_Confusion]:
    """Return the most frequent confusions; of equal counts, the one with the larger share of its class first."""
    support = counts.sum(axis=1)
    confusions = [
        _Confusion(int(true), int(predicted), int(counts[true, predicted]), int(support[true]))
        for true, predicted in np.argwhere(counts > 0)
        if true != predicted
    ]
    return sorted(confusions, key=lambda c: (-c.count, c.of, c.true, c.predicted))[:_LISTED]


def _row_labels(names: Sequence[str]) -> list[str]:
    if len(names) <= _NAMED_COLUMNS:
        return [style.wrap(name, columns=18, lines=3) for name in names]
    return [f"{style.one_line(name, columns=50)} ({index})" for index, name in enumerate(names)]


def _label_size(labels: Sequence[str]) -> float:
    """Return the font size, in points: four fifths of the height of a row next to labels of this length."""
    longest = max(len(line) for label in labels for line in label.split("\n"))
    side = (style.WIDTH - 0.5) / (1 + 0.8 * 0.55 * longest / len(labels))
    return min(0.8 * 72 * side / len(labels), style.SMALL_SIZE)


def _shares(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the share of each cell in its row, float64 [C, C]; 0 in a row without images."""
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _draw_matrix(axes: Axes, counts: NDArray[np.integer], names: Sequence[str]) -> None:
    classes = len(names)
    share = _shares(counts)
    diagonal = np.eye(classes, dtype=bool)
    axes.imshow(np.ma.masked_where(~diagonal | (counts == 0), share), cmap=_RIGHT, norm=_RIGHT_SCALE)
    axes.imshow(np.ma.masked_where(diagonal | (counts == 0), share), cmap=_WRONG, norm=_WRONG_SCALE)

    rows = _row_labels(names)
    label_size = _label_size(rows)
    columns = rows if classes <= _NAMED_COLUMNS else [str(index) for index in range(classes)]
    upright = classes > 25 or (classes <= _NAMED_COLUMNS and max(map(len, columns)) > 60 / classes)
    axes.set_yticks(range(classes), rows, fontsize=label_size, color=style.INK)
    axes.set_xticks(range(classes), columns, fontsize=label_size, color=style.INK, rotation=90 * upright)
    numbered = "" if classes <= _NAMED_COLUMNS else " (number of the class)"
    axes.set_xlabel(f"predicted{numbered}", fontsize=style.TEXT_SIZE, color=style.MUTED)
    axes.set_ylabel("true", fontsize=style.TEXT_SIZE, color=style.MUTED)
    axes.spines[:].set_color(style.RULE)
    # Thin lines between the cells lead the eye from a cell to its class names.
    between, ends = np.arange(0.5, classes - 1), (-0.5, classes - 0.5)
    width = 0.8 if classes <= _COUNTED_CELLS else 0.3
    axes.hlines(between, *ends, color=style.EMPTY, linewidth=width)
    axes.vlines(between, *ends, color=style.EMPTY, linewidth=width)
    axes.tick_params(length=0)


def _number_cells(axes: Axes, counts: NDArray[np.integer], *, least: int | None, listed: Sequence[_Confusion]) -> None:
    """Write counts into cells, each as large as its cell permits.

    least: the count from which errors have a number; None: only those that are `listed`.
    """
    classes, share = len(counts), _shares(counts)
    wanted = counts > 0
    if classes > _COUNTED_CELLS:
        wanted = (share >= _COUNTED_SHARE) & ~np.eye(classes, dtype=bool)
        wanted[[c.true for c in listed], [c.predicted for c in listed]] = True
        if least is not None:
            wanted |= (counts >= least) & ~np.eye(classes, dtype=bool)
    cell = axes.get_window_extent().width / classes * 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    for true, predicted in np.argwhere(wanted):
        dark = share[true, predicted] > (0.5 if true == predicted else 0.25)
        number = f"{counts[true, predicted]}"
        axes.text(
            predicted,
            true,
            number,
            ha="center",
            va="center",
            # A digit is 0.64 times as wide as its size; one digit alone may be as tall as those of a pair.
            fontsize=min(0.88 * cell / (0.64 * max(len(number), 2)), style.SMALL_SIZE),
            color="white" if dark else style.INK,
        )


def _frame_cells(axes: Axes, worst: Sequence[_Confusion]) -> None:
    for confusion in worst:
        corner = (confusion.predicted - 1, confusion.true - 1)
        axes.add_patch(Rectangle(corner, 2, 2, fill=False, edgecolor=style.INK, linewidth=0.8))


def _draw_scales(figure: Figure) -> None:
    """Draw what the colors of the cells mean, between title and matrix."""
    middle, width = style.TITLE_HEIGHT + 0.06, 1.5
    how: dict[str, Any] = {"size": style.SMALL_SIZE, "color": style.MUTED, "va": "center"}
    style.write(figure, "Color: share of the class", top=middle, **how)
    for left, words, colors, scale, ticks in (
        (2.1, "right", _RIGHT, _RIGHT_SCALE, (0, 0.5, 1)),
        (4.7, "wrong", _WRONG, _WRONG_SCALE, (0, 0.1, 0.5, 1)),
    ):
        style.write(figure, words, top=middle, left=left - 0.1, ha="right", **how)
        axes = style.place(figure, left=left, top=middle - 0.06, width=width, height=0.12)
        axes.imshow(np.linspace(0, 1, 256)[None], cmap=colors, extent=(0, 1, 0, 1), aspect="auto")
        axes.set(yticks=[])
        axes.set_xticks(scale(np.array(ticks)), [f"{share:.0%}" for share in ticks])
        axes.tick_params(labelsize=style.SMALL_SIZE - 1, labelcolor=style.MUTED, color=style.RULE, length=2, pad=1)
        axes.spines[:].set_visible(False)


def _draw_list(figure: Figure, worst: Sequence[_Confusion], names: Sequence[str], *, errors: int, tied: int) -> None:
    """List the most frequent confusions in words at the bottom of the figure. tied: others as frequent as the last."""
    height = figure.get_size_inches()[1]
    # Two names per line, and space for the counts.
    columns = style.columns_in((style.WIDTH - 1.3) / 2, style.SMALL_SIZE)
    lines = [
        f"{style.one_line(names[c.true], columns=columns)} → {style.one_line(names[c.predicted], columns=columns)}, "
        f"{c.count:,} of {c.of:,}"
        for c in worst
    ]
    if tied:
        lines.append(f"and {plural(tied, 'other pair')} of classes with {worst[-1].count:,} each")
    heading = f"Most frequent of the {errors:,} mistakes: true → predicted" if errors else "No mistakes"
    for line, words in [(len(lines), heading), *enumerate(reversed(lines))]:
        color, size = (style.INK, style.TEXT_SIZE) if words is heading else (style.MUTED, style.SMALL_SIZE)
        bottom = style.MARGIN + (line + 0.4 * (words is heading)) * _LINE
        style.write(figure, words, top=height - bottom, size=size, color=color, va="bottom")


# --- two runs ---------------------------------------------------------------------------------------------------------


def paired_confusions(
    *,
    truth: NDArray[np.integer],
    predicted: tuple[NDArray[np.integer], NDArray[np.integer]],
    class_names: Sequence[str],
    runs: tuple[str, str],
    epochs: tuple[int, int] | None = None,
) -> Figure:
    """Draw the most frequent confusions of each of two runs on the same images as paired bars.

    Both runs choose the same number of confusions; the order is that of the sum of both.

    Args:
        truth: labels [N].
        predicted: predicted labels [N] of each run.
        runs: names of the two runs.
        epochs: how long each was trained; not stated by default.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    if not len(truth) or any(len(each) != len(truth) for each in predicted):
        raise ValueError(f"need as many predictions as labels, and at least one; got {len(truth)} labels")
    runs = style.one_line(runs[0], columns=_RUN), style.one_line(runs[1], columns=_RUN)
    right = [each == truth for each in predicted]
    counts = [confusion_counts(each, truth, len(class_names)) for each in predicted]
    for each in counts:
        np.fill_diagonal(each, 0)
    together = counts[0] + counts[1]
    chosen = {flat for each in counts for flat in _most_frequent(each)}
    order = sorted(chosen, key=lambda flat: (-together.flat[flat], flat))
    both, neither = (right[0] & right[1]).mean(), (~right[0] & ~right[1]).mean()
    only = (right[0] & ~right[1]).mean(), (right[1] & ~right[0]).mean()
    trained = ["", ""] if epochs is None else [f" ({plural(count, 'epoch')})" for count in epochs]
    words = (
        f"accuracy: {runs[0]} {right[0].mean():.2%}{trained[0]}, {runs[1]} {right[1].mean():.2%}{trained[1]}",
        f"both right {both:.2%}, only {runs[0]} {only[0]:.2%}, only {runs[1]} {only[1]:.2%}, neither {neither:.2%}",
        f"Shown: {plural(len(order), 'pair')} of classes, the {_PAIRS_OF_EACH} most frequent of each run, in the order "
        "of the sum of both. They are "
        + " and ".join(_share(sum(int(each.flat[flat]) for flat in order), int(each.sum())) for each in counts)
        + f" mistakes of {runs[0]} and {runs[1]}.",
    )
    lines = style.wrap_each("\n".join(words), columns=style.columns_in(style.WIDTH - 2 * style.MARGIN, style.TEXT_SIZE))
    height = max(len(order), 1) * _PAIR_LINE
    top = style.TITLE_HEIGHT + 0.39 + 0.18 * (lines.count("\n") + 1)
    figure = style.new_figure(
        height=top + height + 0.45, title=f"Most frequent confusions of two runs on {len(truth):,} images"
    )
    style.write(figure, lines, top=style.TITLE_HEIGHT, size=style.TEXT_SIZE, color=style.INK, linespacing=1.4)
    axes = style.place(figure, left=_NAMES, top=top, width=style.WIDTH - _NAMES - style.MARGIN - 0.2, height=height)
    where = np.arange(len(order))
    for run, (name, color, shift) in enumerate(zip(runs, (style.BLUE, style.ORANGE), (-0.19, 0.19), strict=True)):
        lengths = [int(counts[run].flat[flat]) for flat in order]
        bars = axes.barh(where + shift, lengths, height=0.36, color=color, label=name)
        axes.bar_label(bars, fontsize=style.SMALL_SIZE, color=style.MUTED, padding=2)
    axes.set_yticks(
        where, [_confusion(*(class_names[label] for label in divmod(flat, len(class_names)))) for flat in order]
    )
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlabel("images", fontsize=style.SMALL_SIZE, color=style.MUTED)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(style.RULE)
    axes.tick_params(labelsize=style.SMALL_SIZE, labelcolor=style.INK, color=style.RULE)
    axes.tick_params(axis="y", length=0)
    axes.set_title("true → predicted", loc="left", x=-0.02, ha="right", fontsize=style.SMALL_SIZE, color=style.MUTED)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.05, 1),
        ncols=2,
        fontsize=style.SMALL_SIZE,
        frameon=False,
        labelcolor=style.INK,
        handlelength=1.0,
        handletextpad=0.4,
        columnspacing=1.0,
    )
    return style.finish(figure)


def _most_frequent(counts: NDArray[np.integer]) -> list[int]:
    """Return the flat indices of the largest counts, without zeros."""
    order = np.argsort(-counts, axis=None, kind="stable")[:_PAIRS_OF_EACH]
    return [int(flat) for flat in order if counts.flat[flat]]


def _confusion(true: str, taken: str) -> str:
    """Return both names on one line; a short one leaves its space to the other."""
    letters = style.columns_in(_NAMES - 0.2, style.SMALL_SIZE) - 3
    half = letters // 2
    first = style.one_line(true, columns=max(half, letters - len(taken)))
    return f"{first} → {style.one_line(taken, columns=max(half, letters - len(first)))}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f" ({part / whole:.0%})" if whole else "")
