"""Deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from vitexp.explain.figures import style

# After Okabe and Ito 2008; an explanation has the same color in every figure.
_COLORS: Final = {
    "attention": "#0072b2",
    "rollout": "#d55e00",
    "relevance": "#009e73",
    "Grad-CAM": "#cc79a7",
    "occlusion": "#56b4e9",
}
_OTHERS: Final = ("#e69f00", "#000000")
_BASELINE: Final = "random order"  # gray and dashed
_MOST: Final = len(_COLORS) + len(_OTHERS)
# Inches.
_LEFT: Final = 0.62
_SIDE: Final = 3.0
_BETWEEN: Final = 0.45


def faithfulness_curves(
    *, deletion: Mapping[str, NDArray[np.floating]], insertion: Mapping[str, NDArray[np.floating]]
) -> Figure:
    """Draw the mean curve of each explanation with its area; the band is the 95 % interval of the mean.

    Args:
        deletion, insertion: curves [N, steps + 1] per method (vitexp.explain.methods.faithfulness).

    Raises:
        ValueError: the names differ, or there are none or too many.
    """
    if list(deletion) != list(insertion) or not 1 <= len(deletion) <= _MOST:
        raise ValueError(f"need the same names, 1 to {_MOST}; got {list(deletion)} and {list(insertion)}")
    images = len(next(iter(deletion.values())))
    width = (style.WIDTH - _LEFT - _BETWEEN - style.MARGIN - 0.2) / 2
    title = f"Faithfulness of explanations on {f'{images:,} images' if images > 1 else 'one image'}"
    figure = style.new_figure(height=style.TITLE_HEIGHT + 0.25 + _SIDE + 1.25, title=title)
    top = style.TITLE_HEIGHT + 0.25
    left = style.place(figure, left=_LEFT, top=top, width=width, height=_SIDE)
    _curves(left, deletion, "Deletion: lower is better", "fraction covered with the mean color", best=1)
    left.set_ylabel("probability of the predicted class", fontsize=style.SMALL_SIZE, color=style.MUTED)
    right = style.place(figure, left=_LEFT + width + _BETWEEN, top=top, width=width, height=_SIDE)
    _curves(right, insertion, "Insertion: higher is better", "fraction revealed of the blurred image", best=-1)
    right.set_yticklabels([])
    bands = "bands: 95% interval of the mean; " if images > 1 else ""
    words, bottom = f"{bands}numbers: area under the curve", figure.get_size_inches()[1] - 0.08
    style.write(figure, words, top=bottom, left=_LEFT, size=style.SMALL_SIZE, color=style.MUTED, va="bottom")
    return style.finish(figure)


def _curves(axes: Axes, curves: Mapping[str, NDArray[np.floating]], title: str, x_label: str, *, best: int) -> None:
    """Draw one panel. best: 1 if the smallest area comes first in the legend, -1 for the largest."""
    # The same as vitexp.explain.methods.faithfulness.area_under, which needs torch.
    areas = {name: float((each[:, :-1] + each[:, 1:]).mean() / 2) for name, each in curves.items()}
    spare = iter([*_OTHERS, *(color for name, color in _COLORS.items() if name not in curves)])
    colors = {name: _COLORS.get(name) or (style.MUTED if name == _BASELINE else next(spare)) for name in curves}
    for name in sorted(curves, key=lambda name: best * areas[name]):
        values = curves[name]
        x = np.linspace(0, 1, values.shape[1])
        mean, error = values.mean(axis=0), 1.96 * values.std(axis=0) / max(len(values), 1) ** 0.5
        axes.fill_between(x, mean - error, mean + error, color=colors[name], alpha=0.2, linewidth=0)
        axes.plot(
            x,
            mean,
            color=colors[name],
            linewidth=1.5,
            linestyle="--" if name == _BASELINE else "-",
            label=f"{name}  {areas[name]:.3f}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    style.dress(axes, title=title, x_label=x_label)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.14),
        ncols=2,
        fontsize=style.SMALL_SIZE,
        labelcolor=style.INK,
        frameon=False,
        handlelength=1.4,
        columnspacing=1.0,
    )
