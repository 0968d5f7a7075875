"""Deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
_LINE: Final = 0.18
_RIGHTS: Final = (2.3, 3.5, 4.8)  # right ends of the columns of numbers
_VERDICT: Final = 5.0  # left end of the last column


def faithfulness_curves(
    *, deletion: Mapping[str, NDArray[np.floating]], insertion: Mapping[str, NDArray[np.floating]]
) -> Figure:
    """Draw the mean curve of each explanation, and below a table of the areas; bands and ± are 95 % intervals.

    The table compares each explanation with the random order, image by image.

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
    top = style.TITLE_HEIGHT + 0.25
    key_top = top + _SIDE + 0.55
    figure = style.new_figure(height=key_top + (len(deletion) + 1) * _LINE + 0.45, title=title)
    colors = _colors_of(list(deletion))
    left = style.place(figure, left=_LEFT, top=top, width=width, height=_SIDE)
    _curves(left, deletion, "Deletion: lower is better", "fraction covered with the mean color", colors)
    left.set_ylabel("probability of the predicted class", fontsize=style.SMALL_SIZE, color=style.MUTED)
    right = style.place(figure, left=_LEFT + width + _BETWEEN, top=top, width=width, height=_SIDE)
    _curves(right, insertion, "Insertion: higher is better", "fraction revealed of the blurred image", colors)
    right.set_yticklabels([])
    _draw_key(figure, deletion, insertion, colors, top=key_top)
    words = "Numbers: area under the curve." + (" Bands and ±: 95% interval of the mean." if images > 1 else "")
    if "occlusion" in deletion:
        words += "\nOcclusion covers parts itself, which this measure favors."
    bottom = figure.get_size_inches()[1] - 0.08
    style.write(figure, words, top=bottom, left=_LEFT, size=style.SMALL_SIZE, color=style.MUTED, va="bottom")
    return style.finish(figure)


def _colors_of(names: Sequence[str]) -> dict[str, str]:
    spare = iter([*_OTHERS, *(color for name, color in _COLORS.items() if name not in names)])
    return {name: _COLORS.get(name) or (style.MUTED if name == _BASELINE else next(spare)) for name in names}


def _curves(
    axes: Axes, curves: Mapping[str, NDArray[np.floating]], title: str, x_label: str, colors: Mapping[str, str]
) -> None:
    for name, values in curves.items():
        x = np.linspace(0, 1, values.shape[1])
        mean, error = values.mean(axis=0), 1.96 * values.std(axis=0) / max(len(values), 1) ** 0.5
        axes.fill_between(x, mean - error, mean + error, color=colors[name], alpha=0.2, linewidth=0)
        axes.plot(
            x,
            mean,
            color=colors[name],
            linewidth=1.5,
            linestyle=_dashes(name),
            label=name,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    style.dress(axes, title=title, x_label=x_label)


def _draw_key(
    figure: Figure,
    deletion: Mapping[str, NDArray[np.floating]],
    insertion: Mapping[str, NDArray[np.floating]],
    colors: Mapping[str, str],
    *,
    top: float,
) -> None:
    """Draw a table of the explanations and their areas, the largest mean difference first."""
    areas = {name: (_areas(insertion[name]), _areas(deletion[name])) for name in deletion}
    order = sorted(areas, key=lambda name: -float((areas[name][0] - areas[name][1]).mean()))
    width = style.WIDTH - _LEFT - style.MARGIN
    axes = style.place_bare(figure, left=_LEFT, top=top, width=width, height=(len(order) + 1) * _LINE)
    axes.set(xlim=(0, width), ylim=(len(order) + 1, 0))
    how: dict[str, Any] = {"va": "center", "fontsize": style.SMALL_SIZE}
    for right, heading in zip(_RIGHTS, ("deletion", "insertion", "insertion - deletion"), strict=True):
        axes.text(right, 0.5, heading, ha="right", color=style.MUTED, **how)
    baseline = areas.get(_BASELINE)
    if baseline is not None and len(baseline[0]) > 1:
        axes.text(_VERDICT, 0.5, "better than random?", ha="left", color=style.MUTED, **how)
    names = style.columns_in(_RIGHTS[0] - 1.1, style.SMALL_SIZE)
    for line, name in enumerate(order):
        middle = line + 1.5
        axes.plot([0, 0.25], [middle, middle], color=colors[name], linewidth=1.5, linestyle=_dashes(name))
        axes.text(0.35, middle, style.one_line(name, columns=names), color=style.INK, **how)
        high, low = areas[name]
        for right, values in zip(_RIGHTS, (low, high, high - low), strict=True):
            axes.text(right, middle, _interval(values), ha="right", color=style.INK, **how)
        if baseline is not None and name != _BASELINE:
            verdict = _verdict((high - low) - (baseline[0] - baseline[1]))
            axes.text(_VERDICT, middle, verdict, ha="left", color=style.INK, **how)


def _areas(curves: NDArray[np.floating]) -> NDArray[np.floating]:
    # The same as vitexp.explain.methods.faithfulness.area_under, which needs torch.
    return np.asarray((curves[:, :-1] + curves[:, 1:]).mean(axis=1) / 2)


def _interval(values: NDArray[np.floating]) -> str:
    """Return the mean, and half of its 95 % interval if there are several values."""
    half = f" ± {1.96 * values.std(ddof=1) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{half}"


def _verdict(gains: NDArray[np.floating]) -> str:
    """Say whether the mean gain over the random order is clearly above 0, by its 95 % interval; "" for one image."""
    if len(gains) < 2:
        return ""
    mean, half = gains.mean(), 1.96 * gains.std(ddof=1) / len(gains) ** 0.5
    return "clearly" if mean > half else "clearly worse" if mean < -half else "not clearly"


def _dashes(name: str) -> str:
    return "--" if name == _BASELINE else "-"
