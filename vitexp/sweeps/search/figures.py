"""A search as two pictures: how its best came up, and which keys it hung on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vitexp.sweeps.search.study import Settings, value
from vitexp.sweeps.tables.figure import BLUE, EMPTY, INK, MUTED, ORANGE, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

# Inches.
_WIDTH: Final = 7.2
_PANELS: Final = 4  # keys whose values are drawn, a row


def draw_history(trials: Sequence[FrozenTrial], target: Path, *, settings: Settings, title: str) -> None:
    """Every trial's value by its number, and the best so far as a line; below, which were pruned or failed."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(3.4, f"{title}: history")
    axes = figure.subplots()
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    best: list[float] = list(accumulate(map(value, done), max if settings.direction == "maximize" else min))
    ends = [*(trial.number for trial in done), len(trials) - 1]
    axes.step(ends, [*best, best[-1]], where="post", color=ORANGE, linewidth=1.6, label="best so far", zorder=2)
    numbers = [trial.number for trial in done]
    axes.plot(numbers, [value(trial) for trial in done], "o", markersize=5.5, color=BLUE, label="completed", zorder=3)
    worse = 0.05 if settings.direction == "maximize" else 0.95  # an edge: they have no value to compare
    for state, label, marker, color in (("PRUNED", "pruned", "o", BLUE), ("FAIL", "failed", "x", MUTED)):
        if numbers := [trial.number for trial in trials if trial.state.name == state]:
            style: dict[str, Any] = {"marker": marker, "linestyle": "none", "color": color, "markerfacecolor": "white"}
            at = [worse] * len(numbers)
            axes.plot(numbers, at, markersize=5, label=label, transform=axes.get_xaxis_transform(), **style)
    dress(axes)
    axes.grid(axis="y", color=EMPTY, linewidth=0.8)
    axes.margins(y=0.2)
    axes.set_title(f"{settings.metric} ({settings.direction})", loc="left", fontsize=9, color=INK)
    axes.set_xlabel("trial", loc="left", fontsize=8, color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(frameon=False, fontsize=8, labelcolor=MUTED, ncols=4, loc="outside lower left")
    figure.savefig(target)


def draw_importance(
    importances: Mapping[str, float],
    completed: Sequence[FrozenTrial],
    target: Path,
    *,
    settings: Settings,
    title: str,
) -> None:
    """A bar a key; below it the trials' values over the most important of them. Importances sum to 1."""
    keys = sorted(importances, key=lambda key: importances[key])
    shown = keys[::-1][:_PANELS]
    height = 0.3 * len(keys) + 0.9
    figure = _figure(height + 2.6, f"{title}: importance")
    upper, lower = figure.subfigures(2, 1, height_ratios=[height, 2.3], squeeze=False)[:, 0]
    bars = upper.subplots()
    bars.barh(keys, [importances[key] for key in keys], height=0.55, color=BLUE)
    dress(bars)
    bars.set_yticks(range(len(keys)), keys, fontsize=9, color=INK)
    bars.set_xlim(0, 1.12 * max(*importances.values(), 0.01))
    for y, key in enumerate(keys):
        bars.text(importances[key], y, f" {importances[key]:.2f}", va="center", fontsize=8, color=MUTED)
    bars.set_title("share in what sets the best quarter apart (PED-ANOVA)", loc="left", fontsize=9, color=INK)
    panels = lower.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, shown, strict=True):
        _draw_values(axes, key, completed, settings.space[key])
    panels[0].set_title(f"{settings.metric}, completed trials (orange: the best)", loc="left", fontsize=9, color=INK)
    figure.savefig(target)


def _draw_values(axes: Axes, key: str, completed: Sequence[FrozenTrial], spec: Mapping[str, Any]) -> None:
    """The completed trials over one key, the best in orange, as wide as the key was searched."""
    from matplotlib.ticker import NullLocator

    at: list[Any] = [trial.params[key] for trial in completed]
    if not all(isinstance(each, int | float) for each in at):
        at = [str(each) for each in at]
    values = [value(trial) for trial in completed]
    axes.plot(at, values, "o", markersize=4, color=BLUE, alpha=0.7)
    axes.plot(at[:1], values[:1], "o", markersize=6, color=ORANGE)
    dress(axes)
    if spec.get("log"):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    if "low" in spec:
        axes.update_datalim([(spec["low"], values[0]), (spec["high"], values[0])])
        axes.autoscale_view()
    axes.grid(axis="y", color=EMPTY, linewidth=0.8)
    axes.set_xlabel(key, loc="left", fontsize=8, color=MUTED)


def _figure(height: float, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure
