"""Deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from matplotlib.axes import Axes
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
    finish,
    new_figure,
    place,
)

# After Okabe and Ito 2008; an explanation has the same one in the figures of all nets.
_COLOURS: Final = {
    "attention": "#0072b2",
    "rollout": "#d55e00",
    "relevance": "#009e73",
    "Grad-CAM": "#cc79a7",
    "occlusion": "#56b4e9",
}
_OTHERS: Final = ("#e69f00", "#000000")
_BASELINE: Final = "random order"  # grey and dashed
_MOST: Final = len(_COLOURS) + len(_OTHERS)
_LEFT: Final = 0.62
_SIDE: Final = 3.0
_BETWEEN: Final = 0.45


def faithfulness_curves(
    *, deletion: Mapping[str, NDArray[np.floating]], insertion: Mapping[str, NDArray[np.floating]]
) -> Figure:
    """The mean curve of each explanation, with the area under it; the band is its standard error.

    Args:
        deletion, insertion: curves [N, steps + 1] of each method (vitexp.explain.methods.faithfulness).

    Raises:
        ValueError: the names differ, there are none, or more than there are colours.
    """
    if list(deletion) != list(insertion) or not 1 <= len(deletion) <= _MOST:
        raise ValueError(f"need the same names, 1 to {_MOST}; got {list(deletion)} and {list(insertion)}")
    images = len(next(iter(deletion.values())))
    width = (WIDTH - _LEFT - _BETWEEN - MARGIN - 0.2) / 2
    title = f"Which explanation is faithful, on {f'{images:,} images' if images > 1 else 'one image'}"
    figure = new_figure(height=TITLE_HEIGHT + 0.25 + _SIDE + 1.25, title=title)
    top = TITLE_HEIGHT + 0.25
    left = place(figure, left=_LEFT, top=top, width=width, height=_SIDE)
    _curves(left, deletion, "Deletion: lower is better", "share of the image covered", best=1)
    left.set_ylabel("probability of the predicted class", fontsize=SMALL_SIZE, color=STYLE["muted"])
    right = place(figure, left=_LEFT + width + _BETWEEN, top=top, width=width, height=_SIDE)
    _curves(right, insertion, "Insertion: higher is better", "share of the image shown", best=-1)
    right.set_yticklabels([])
    bands = "bands: one standard error; " if images > 1 else ""
    words = f"{bands}numbers: the area under the curve"
    y = 0.08 / figure.get_size_inches()[1]
    figure.text(_LEFT / WIDTH, y, words, va="bottom", fontsize=SMALL_SIZE, color=STYLE["muted"])
    return finish(figure)


def _curves(
    axes: Axes,
    curves: Mapping[str, NDArray[np.floating]],
    title: str,
    x_label: str,
    *,
    best: int,
) -> None:
    """`best`: 1 where the smallest area comes first in the legend, -1 where the largest does."""
    # as vitexp.explain.methods.faithfulness.area_under, which needs torch
    areas = {name: float((each[:, :-1] + each[:, 1:]).mean() / 2) for name, each in curves.items()}
    spare = iter([*_OTHERS, *(colour for name, colour in _COLOURS.items() if name not in curves)])
    colours = {name: _COLOURS.get(name) or (STYLE["muted"] if name == _BASELINE else next(spare)) for name in curves}
    for name in sorted(curves, key=lambda name: best * areas[name]):
        values = curves[name]
        x = np.linspace(0, 1, values.shape[1])
        mean, error = values.mean(axis=0), values.std(axis=0) / max(len(values), 1) ** 0.5
        axes.fill_between(x, mean - error, mean + error, color=colours[name], alpha=0.2, linewidth=0)
        axes.plot(
            x,
            mean,
            color=colours[name],
            linewidth=1.5,
            linestyle="--" if name == _BASELINE else "-",
            label=f"{name}  {areas[name]:.3f}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title(title, loc="left", fontsize=TEXT_SIZE, color=STYLE["ink"])
    axes.set_xlabel(x_label, fontsize=SMALL_SIZE, color=STYLE["muted"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(STYLE["rule"])
    axes.tick_params(labelsize=SMALL_SIZE, labelcolor=STYLE["muted"], color=STYLE["rule"])
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.14),
        ncols=2,
        fontsize=SMALL_SIZE,
        labelcolor=STYLE["ink"],
        frameon=False,
        handlelength=1.4,
        columnspacing=1.0,
    )
