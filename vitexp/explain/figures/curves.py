"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from vitexp.explain.figures import style

Curve = tuple[Sequence[float], Sequence[float]]
_Points = tuple[NDArray[np.float64], NDArray[np.float64]]

# Title, height in inches, and the curves of a panel: name in the history, label and color.
_PANELS = (
    ("Loss", 2.3, (("train/loss", "train", style.BLUE), ("val/loss", "validation", style.ORANGE))),
    ("Accuracy", 2.3, (("train/accuracy", "train", style.BLUE), ("val/accuracy", "validation", style.ORANGE))),
    ("Learning rate", 1.3, (("lr", "", style.MUTED),)),
)


def learning_curves(*, history: Mapping[str, Curve], tested: Literal["best", "last"], x_label: str = "epoch") -> Figure:
    """Draw loss, accuracy and learning rate during training, one panel each; panels without data are omitted.

    The title states the validation accuracy, or the loss if there is no accuracy, of the weights that are tested.

    Args:
        history: any of `train/loss`, `val/loss`, `train/accuracy`, `val/accuracy` (fractions) and `lr`, each as
            (x, values), with the same scale of x. Other names and values that are not finite are ignored.
        tested: the "best" ones on validation, which are marked, or the "last" ones.
        x_label: unit of x.

    Raises:
        ValueError: no curve has a finite value.
    """
    curves = {name: points for name, curve in history.items() if (points := _finite(curve))[0].size}
    panels = [
        (title, height, present)
        for title, height, entries in _PANELS
        if (present := [entry for entry in entries if entry[0] in curves])
    ]
    if not panels:
        raise ValueError("the history has no curve to draw")
    at, result = _validated(curves, tested) or (None, "")
    title = "Learning curves"
    if at is not None:
        title = f"{'Best v' if tested == 'best' else 'V'}alidation {result} at {x_label} {at:g}"
    heights = [height for _, height, _ in panels]
    height = style.TITLE_HEIGHT + sum(heights) + 0.35
    figure = style.new_figure(height=height, title=title)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - style.TITLE_HEIGHT / height))
    all_axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (name, _, entries) in zip(all_axes, panels, strict=True):
        for key, label, color in entries:
            x_values, values = curves[key]
            # A line of few points would be invisible.
            marker = "o" if len(x_values) < 12 else ""
            axes.plot(x_values, values, label=label, color=color, linewidth=1.6, marker=marker, markersize=4)
        if at is not None and tested == "best":
            axes.axvline(at, color=style.MUTED, linewidth=0.9, linestyle=style.DASHES, zorder=1)
        if name != "Learning rate":
            axes.legend(frameon=False, fontsize=style.SMALL_SIZE, labelcolor=style.INK)
        style.dress(axes, title=name, grid=True)
        axes.yaxis.set_major_formatter(FuncFormatter(_percent if name == "Accuracy" else _plain_number))
    all_axes[-1].set_xlabel(x_label, fontsize=style.TEXT_SIZE, color=style.MUTED)
    low, high = all_axes[-1].get_xlim()
    if high - low < 1:  # one epoch: fit one whole number on the axis
        all_axes[-1].set_xlim(low - 0.5, high + 0.5)
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    return style.finish(figure)


def _finite(curve: Curve) -> _Points:
    x, values = (np.asarray(part, dtype=np.float64) for part in curve)
    keep = np.isfinite(x) & np.isfinite(values)
    return x[keep], values[keep]


def _validated(curves: Mapping[str, _Points], tested: Literal["best", "last"]) -> tuple[float, str] | None:
    """Return x and description of the best or last validation result, the first one if several are equally good."""
    if "val/accuracy" in curves:
        x, values = curves["val/accuracy"]
        at = int(values.argmax()) if tested == "best" else -1
        return float(x[at]), f"accuracy {values[at]:.2%}"
    if "val/loss" in curves:
        x, values = curves["val/loss"]
        at = int(values.argmin()) if tested == "best" else -1
        return float(x[at]), f"loss {values[at]:.4f}"
    return None


def _plain_number(value: float, _position: int) -> str:
    """Format without an offset or power of ten next to the axis, which is easily overlooked."""
    return f"{value:.6g}"


def _percent(value: float, _position: int) -> str:
    return f"{100 * value:.6g}%"
