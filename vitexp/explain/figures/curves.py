"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from vitexp.explain.figures.style import SMALL_SIZE, STYLE, TEXT_SIZE, TITLE_HEIGHT, finish, new_figure

Curve = tuple[Sequence[float], Sequence[float]]
_Points = tuple[NDArray[np.float64], NDArray[np.float64]]

# Title, height in inches, and the curves of a panel: their name in the history, label and colour.
_PANELS = (
    ("Loss", 2.3, (("train/loss", "train", "train"), ("val/loss", "validation", "val"))),
    ("Accuracy", 2.3, (("train/accuracy", "train", "train"), ("val/accuracy", "validation", "val"))),
    ("Learning rate", 1.3, (("lr", "", "muted"),)),
)


def learning_curves(*, history: Mapping[str, Curve], x_label: str = "epoch") -> Figure:
    """Loss, accuracy and learning rate over training, one panel each; panels without data are left out.

    The best point of the validation is marked: the highest accuracy, or the lowest loss where there is no accuracy.

    Args:
        history: `train/loss`, `val/loss`, `train/accuracy`, `val/accuracy` (fractions) and `lr`, as far as there are;
            each as (x, values), all x on one scale. Other names are ignored, and values that are not finite left out.
        x_label: what x counts.

    Raises:
        ValueError: there is nothing to draw.
    """
    curves = {name: points for name, curve in history.items() if (points := _finite(curve))[0].size}
    panels = [
        (title, height, present)
        for title, height, entries in _PANELS
        if (present := [entry for entry in entries if entry[0] in curves])
    ]
    if not panels:
        raise ValueError("the history has no curve to draw")
    best = _best(curves)
    title = "Learning curves"
    if best is not None:
        x, words = best
        title = f"Best validation {words} at {x_label} {x:g}"
    heights = [height for _, height, _ in panels]
    height = TITLE_HEIGHT + sum(heights) + 0.35
    figure = new_figure(height=height, title=title)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - TITLE_HEIGHT / height))
    all_axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (name, _, entries) in zip(all_axes, panels, strict=True):
        for key, label, colour in entries:
            x_values, values = curves[key]
            # Few points would be an invisible line.
            marker = "o" if len(x_values) < 12 else ""
            axes.plot(x_values, values, label=label, color=STYLE[colour], linewidth=1.6, marker=marker, markersize=4)
        if best is not None:
            axes.axvline(best[0], color=STYLE["muted"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        if name != "Learning rate":
            axes.legend(frameon=False, fontsize=SMALL_SIZE, labelcolor=STYLE["ink"])
        _dress(axes, name)
    all_axes[-1].set_xlabel(x_label, fontsize=TEXT_SIZE, color=STYLE["muted"])
    low, high = all_axes[-1].get_xlim()
    if high - low < 1:  # one epoch: make room for one whole number on the axis
        all_axes[-1].set_xlim(low - 0.5, high + 0.5)
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    return finish(figure)


def _finite(curve: Curve) -> _Points:
    x, values = (np.asarray(part, dtype=np.float64) for part in curve)
    keep = np.isfinite(x) & np.isfinite(values)
    return x[keep], values[keep]


def _best(curves: Mapping[str, _Points]) -> tuple[float, str] | None:
    """Where the validation was best, and its value in words; the first of equals."""
    if "val/accuracy" in curves:
        x, values = curves["val/accuracy"]
        at = int(values.argmax())
        return float(x[at]), f"accuracy {values[at]:.2%}"
    if "val/loss" in curves:
        x, values = curves["val/loss"]
        at = int(values.argmin())
        return float(x[at]), f"loss {values[at]:.4f}"
    return None


def _dress(axes: Axes, name: str) -> None:
    axes.set_title(name, loc="left", fontsize=TEXT_SIZE, color=STYLE["ink"])
    axes.grid(color=STYLE["empty"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(STYLE["rule"])
    axes.tick_params(labelsize=SMALL_SIZE, labelcolor=STYLE["muted"], color=STYLE["rule"])
    axes.yaxis.set_major_formatter(FuncFormatter(_percent if name == "Accuracy" else _plain_number))


def _plain_number(value: float, _position: int) -> str:
    """A number without an offset or a power of ten beside the axis, which would be read past."""
    return f"{value:.6g}"


def _percent(value: float, _position: int) -> str:
    return f"{100 * value:.6g}%"
