"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from vitexp.explain.figures import style
from vitexp.metrics import Metric, metric

Curve = tuple[Sequence[float], Sequence[float]]
_Points = tuple[NDArray[np.float64], NDArray[np.float64]]
_Panel = tuple[str, float, tuple[tuple[str, str, str], ...]]

# Title, height in inches, and the curves of a panel: name in the history, label and color.
_PANELS: tuple[_Panel, ...] = (
    ("Loss", 2.1, (("train/loss", "train", style.BLUE), ("val/loss", "validation", style.ORANGE))),
    ("Accuracy", 2.1, (("train/accuracy", "train", style.BLUE), ("val/accuracy", "validation", style.ORANGE))),
    (
        "Precision, recall and F1 on validation, mean of the classes",
        2.1,
        (
            ("val/precision_macro", "precision", style.GREEN),
            ("val/recall_macro", "recall", "#aa4499"),
            ("val/f1_macro", "F1", style.INK),
        ),
    ),
    ("k-NN accuracy of the features", 2.1, (("val/knn_accuracy", "validation", style.ORANGE),)),
)
_RATE: _Panel = ("Learning rate", 1.3, (("lr", "", style.MUTED),))


def learning_curves(
    *,
    history: Mapping[str, Curve],
    best: tuple[str, Literal["min", "max"]] | None = None,
    x_label: str = "epoch",
    image_changes: Sequence[str] = (),
    loss_changes: Sequence[str] = (),
    baseline: float | None = None,
) -> Figure:
    """Draw loss, accuracy, precision, recall, F1 and learning rate during training; panels without data are omitted.

    The title states the validation result of the weights that are tested.

    Args:
        history: any of `train/loss`, `train/accuracy`, `lr`, and metrics of validation such as `val/loss`, each as
            (x, values), with the same scale of x. Other names and values that are not finite are ignored.
        best: the curve whose best value chooses the weights that are tested, which is marked, and whether that is its
            lowest or highest; of equal ones, that with the lowest `val/loss`. None: the last weights are tested.
        x_label: unit of x.
        image_changes: what distinguishes training images from those of validation, for example "augmented".
        loss_changes: what distinguishes the training loss, for example "label smoothing 0.1".
        baseline: the accuracy of always predicting the most frequent class, drawn as a line.

    Raises:
        ValueError: no curve has a finite value.
    """
    curves = {name: points for name, curve in history.items() if (points := _finite(curve))[0].size}
    panels = [
        (title, height, present)
        for title, height, entries in (*_PANELS, *_panel_of(best), _RATE)
        if (present := [entry for entry in entries if entry[0] in curves])
    ]
    if not panels:
        raise ValueError("the history has no curve to draw")
    tested = _tested(curves, best)
    title = "Learning curves"
    if tested is not None:
        name, at, value = tested
        result = f"{_metric(name).label} {_metric(name).format(value)} at {x_label} {at:g}"
        title = f"Best validation {result}" if best else f"Validation {result}, the last"
    heights = [height for _, height, _ in panels]
    height = style.TITLE_HEIGHT + sum(heights) + 0.35
    figure = style.new_figure(height=height, title=title)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - style.TITLE_HEIGHT / height))
    all_axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (panel, _, entries) in zip(all_axes, panels, strict=True):
        for key, label, color in entries:
            x_values, values = curves[key]
            # A line of few points would be invisible.
            marker = "o" if len(x_values) < 12 else ""
            if key in ("train/loss", "train/accuracy"):
                differs = [*image_changes, *(loss_changes if key == "train/loss" else ())]
                label += f" ({', '.join(differs)})" if differs else ""
            axes.plot(x_values, values, label=label, color=color, linewidth=1.6, marker=marker, markersize=4)
        if best and tested:
            _mark(axes, *tested, names=[key for key, *_ in entries], x_label=x_label)
        if baseline is not None and panel == "Accuracy":
            words = f"always the most frequent class: {baseline:.1%}"
            axes.axhline(baseline, color=style.MUTED, linewidth=1, linestyle=":", label=words)
        if panel != _RATE[0]:
            axes.legend(frameon=False, fontsize=style.SMALL_SIZE, labelcolor=style.INK)
        style.dress(axes, title=panel, grid=True)
        is_percent = _metric(entries[0][0]).is_percent
        axes.yaxis.set_major_formatter(FuncFormatter(_percent if is_percent else _plain_number))
    all_axes[-1].set_xlabel(x_label, fontsize=style.TEXT_SIZE, color=style.MUTED)
    low, high = all_axes[-1].get_xlim()
    if high - low < 1:  # one epoch: fit one whole number on the axis
        all_axes[-1].set_xlim(low - 0.5, high + 0.5)
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    return style.finish(figure)


def learning_rate_range(
    *, rates: NDArray[np.float64], losses: NDArray[np.float64], smoothed: NDArray[np.float64], suggested: float
) -> Figure:
    """Draw the training loss over the learning rate of a range test, with the suggested rate.

    Args:
        rates: learning rates, ascending, [N]. losses: the loss of each batch, [N]. smoothed: their moving average, [N].
        suggested: one of `rates`.
    """
    title = f"The loss falls fastest at a learning rate of {suggested:.2g}"
    figure = style.new_figure(height=style.TITLE_HEIGHT + 3.2, title=title)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 3.2 / (style.TITLE_HEIGHT + 3.2)))
    axes = figure.subplots()
    axes.plot(rates, losses, color=style.BLUE, alpha=0.25, linewidth=1, label="single batches")
    axes.plot(rates, smoothed, color=style.BLUE, linewidth=1.8, label="moving average")
    axes.axvline(suggested, color=style.INK, linewidth=1, linestyle=style.DASHES, label=f"optim.lr={suggested:.2g}")
    # Without what diverged, which would press the rest against the bottom.
    low, high = float(smoothed.min()), float(smoothed[: int(np.argmin(smoothed)) + 1].max())
    axes.set(xscale="log", ylim=(low - 0.15 * (high - low), high + 0.35 * (high - low)))
    axes.legend(frameon=False, fontsize=style.SMALL_SIZE, labelcolor=style.INK, loc="upper right")
    axes.xaxis.set_major_formatter(FuncFormatter(_plain_number))  # instead of powers in mathematical notation
    style.dress(axes, title="Training loss", grid=True, x_label="learning rate")
    return style.finish(figure)


def _panel_of(best: tuple[str, str] | None) -> list[_Panel]:
    """Return a panel for the curve that chooses the weights, unless it has one anyway."""
    drawn = {name for *_, entries in _PANELS for name, *_ in entries}
    if best is None or best[0] in drawn:
        return []
    label = _metric(best[0]).label
    return [(label[0].upper() + label[1:], 2.1, ((best[0], "validation", style.ORANGE),))]


def _metric(name: str) -> Metric:
    return metric(name.rpartition("/")[2])


def _mark(axes: Axes, name: str, at: float, value: float, *, names: Sequence[str], x_label: str) -> None:
    """Mark the best epoch in a panel with curves of these `names`, and the best value on its own curve."""
    if name in names:
        label = f"best, {x_label} {at:g}"
        axes.plot([at], [value], "o", label=label, markersize=7, mfc="white", mec=style.INK, mew=1.6, zorder=4)
    axes.axvline(at, color=style.MUTED, linewidth=0.9, linestyle=style.DASHES, zorder=1)


def _finite(curve: Curve) -> _Points:
    x, values = (np.asarray(part, dtype=np.float64) for part in curve)
    keep = np.isfinite(x) & np.isfinite(values)
    return x[keep], values[keep]


def _tested(curves: Mapping[str, _Points], best: tuple[str, str] | None) -> tuple[str, float, float] | None:
    """Return name, x and value of the validation result of the weights that are tested; None if there is none."""
    name = best[0] if best else next((name for name in ("val/accuracy", "val/loss") if name in curves), None)
    if name is None or name not in curves:
        return None
    x, values = curves[name]
    at = -1
    if best is not None:
        losses = dict(zip(*curves.get("val/loss", ([], [])), strict=True))
        sign = -1 if best[1] == "max" else 1
        at = min(range(len(x)), key=lambda index: (sign * values[index], losses.get(x[index], np.inf)))
    return name, float(x[at]), float(values[at])


def _plain_number(value: float, _position: int) -> str:
    """Format without an offset or power of ten next to the axis, which is easily overlooked."""
    return f"{value:.6g}"


def _percent(value: float, _position: int) -> str:
    return f"{100 * value:.6g}%"
