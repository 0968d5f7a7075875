"""Learning curves of several runs in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vitexp.explain.figures import style
from vitexp.explain.figures.curves import Curve
from vitexp.text import cut

_COLORS: Final = (style.BLUE, style.ORANGE, style.GREEN, "#aa4499", style.INK, "#c79a00", "#56b4e9", style.RED)
_HEIGHT: Final = 3.0  # inches, of the curves
_LINE: Final = 0.18  # of the legend
_FEW: Final = 12  # epochs; with fewer, points are marked: a line of one point would be invisible
_PANELS: Final = (("Loss", "loss", 1.0), ("Accuracy (%)", "accuracy", 100.0))


def model_comparison(
    *, histories: Mapping[str, Sequence[Mapping[str, Curve]]], title: str, subtitle: str = ""
) -> Figure:
    """Draw loss and accuracy of runs during training: one color per name, validation solid, training dashed.

    Args:
        histories: the runs by name, several if they differ only in their seed. A run is any of `train/loss`,
            `val/loss`, `train/accuracy` and `val/accuracy`, each as (epochs, values); other curves are ignored.
        title: of the figure. subtitle: below it, for example how long each run was trained.

    Raises:
        ValueError: no run has such a curve.
    """
    panels = [
        (heading, metric, scale)
        for heading, metric, scale in _PANELS
        if any(f"{part}/{metric}" in run for runs in histories.values() for run in runs for part in ("train", "val"))
    ]
    if not panels:
        raise ValueError("no run has a curve to draw")
    colors = _colors(len(histories))
    # The first is the largest, so that it can be seen around the others, which are drawn over it.
    sizes = np.linspace(6.5, 4, len(histories)) if len(histories) > 1 else [4.0]
    below = _LINE * (len(histories) + 1) + 0.1
    about = style.wrap(subtitle, columns=style.columns_in(style.WIDTH - 2 * style.MARGIN, style.TEXT_SIZE))
    head = style.TITLE_HEIGHT + (_LINE * (about.count("\n") + 1) if about else 0)
    height = head + _HEIGHT + below
    letters = style.columns_in(0.9 * style.WIDTH, style.TITLE_SIZE)
    figure = style.new_figure(height=height, title=cut(title, letters))
    if about:
        style.write(figure, about, top=style.TITLE_HEIGHT - 0.05, size=style.TEXT_SIZE, color=style.INK)
    figure.set_layout_engine("constrained", rect=(0, below / height, 1, 1 - (head + below) / height))
    for axes, (heading, metric, scale) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for color, size, runs in zip(colors, sizes, histories.values(), strict=True):
            for run in runs:
                _draw(axes, run, metric, scale=scale, color=color, size=size)
        style.dress(axes, title=heading)
        axes.set_xlabel("epoch", fontsize=style.SMALL_SIZE, color=style.MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if np.ptp(axes.dataLim.intervalx) == 0:  # a single epoch, which integer ticks need space around
            axes.set_xlim(axes.dataLim.x0 - 1, axes.dataLim.x0 + 1)
        axes.grid(color=style.EMPTY, linewidth=0.8)
    handles = [
        # A run of one epoch is a dot.
        Line2D([], [], color=color, linewidth=2) if any(map(_has_line, runs)) else Line2D([], [], **_dot(color, size))
        for color, size, runs in zip(colors, sizes, histories.values(), strict=True)
    ]
    names = [style.one_line(name, columns=90) for name in histories]
    handles.append(Line2D([], [], color=style.MUTED, linewidth=1.2, linestyle=style.DASHES))
    has_dots = any(len(x) < _FEW for runs in histories.values() for run in runs for x, _ in run.values())
    training = "dashed, hollow" if has_dots else "dashed"
    names.append(f"{training}: on the augmented training images; solid: on validation")
    figure.legend(
        handles, names, loc="lower left", fontsize=style.SMALL_SIZE, frameon=False, borderaxespad=0.3, handlelength=2.4
    )
    return style.finish(figure)


def _draw(axes: Axes, run: Mapping[str, Curve], metric: str, *, scale: float, color: str, size: float) -> None:
    for part, line in (("train", style.DASHES), ("val", "-")):
        if f"{part}/{metric}" in run:
            epochs, values = run[f"{part}/{metric}"]
            width = 1.5 if part == "val" else 1.0
            axes.plot(
                epochs,
                scale * np.asarray(values),
                color=color,
                linestyle=line,
                linewidth=width,
                marker="o" if len(epochs) < _FEW else "",
                markersize=size,
                markerfacecolor=color if part == "val" else "none",
            )


def _has_line(run: Mapping[str, Curve]) -> bool:
    return any(len(epochs) > 1 for epochs, _ in run.values())


def _dot(color: str, size: float) -> dict[str, Any]:
    return {"color": color, "linestyle": "", "marker": "o", "markersize": size}


def _colors(count: int) -> Sequence[str]:
    if count <= len(_COLORS):
        return _COLORS[:count]
    shades = colormaps["turbo"](np.linspace(0.05, 0.95, count))
    return ["#" + "".join(f"{round(255 * part):02x}" for part in shade[:3]) for shade in shades]
