"""The figures of a search: its progress, and which keys matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from vitexp.explain.figures.style import BLUE, INK, MUTED, ORANGE, SMALL_SIZE, TEXT_SIZE, finish
from vitexp.sweeps.search.study import Settings, value
from vitexp.sweeps.tables.figure import constrained_figure, dress

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_PANELS: Final = 4  # keys whose values are drawn, side by side


def draw_history(trials: Sequence[FrozenTrial], target: Path, *, settings: Settings, title: str) -> None:
    """Draw the value of every trial over its number and the best so far as a line; pruned and failed ones below."""
    figure = constrained_figure(height=3.4, title=f"{title}: history")
    axes = figure.subplots()
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    best: list[float] = list(accumulate(map(value, done), max if settings.direction == "maximize" else min))
    ends = [*(trial.number for trial in done), len(trials) - 1]
    axes.step(ends, [*best, best[-1]], where="post", color=ORANGE, linewidth=1.6, label="best so far", zorder=2)
    numbers = [trial.number for trial in done]
    axes.plot(numbers, [value(trial) for trial in done], "o", markersize=5.5, color=BLUE, label="completed", zorder=3)
    worse = 0.05 if settings.direction == "maximize" else 0.95  # at the edge, because they have no comparable value
    for state, label, marker, color in (("PRUNED", "pruned", "o", BLUE), ("FAIL", "failed", "x", MUTED)):
        if numbers := [trial.number for trial in trials if trial.state.name == state]:
            style: dict[str, Any] = {"marker": marker, "linestyle": "none", "color": color, "markerfacecolor": "white"}
            at = [worse] * len(numbers)
            axes.plot(numbers, at, markersize=5, label=label, transform=axes.get_xaxis_transform(), **style)
    dress(axes, title=f"{settings.metric} ({settings.direction})", x_label="trial", grid="both")
    axes.margins(y=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(frameon=False, fontsize=SMALL_SIZE, labelcolor=MUTED, ncols=4, loc="outside lower left")
    finish(figure).savefig(target)


def draw_importance(
    importances: Mapping[str, float],
    completed: Sequence[FrozenTrial],
    target: Path,
    *,
    settings: Settings,
    title: str,
) -> None:
    """Draw one bar per key, and the values of the trials over the most important keys.

    importances: by key, sum 1. completed: the best first.
    """
    keys = sorted(importances, key=lambda key: importances[key])
    drawn = keys[::-1][:_PANELS]
    height = 0.3 * len(keys) + 0.9
    figure = constrained_figure(height=height + 2.6, title=f"{title}: importance")
    upper, lower = figure.subfigures(2, 1, height_ratios=[height, 2.3], squeeze=False)[:, 0]
    bars = upper.subplots()
    bars.barh(keys, [importances[key] for key in keys], height=0.55, color=BLUE)
    dress(bars, title="contribution to being in the best quarter (PED-ANOVA)")
    bars.set_yticks(range(len(keys)), keys, fontsize=TEXT_SIZE, color=INK)
    bars.set_xlim(0, 1.12 * max(*importances.values(), 0.01))
    for y, key in enumerate(keys):
        bars.text(importances[key], y, f" {importances[key]:.2f}", va="center", fontsize=SMALL_SIZE, color=MUTED)
    panels = lower.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, drawn, strict=True):
        _draw_values(axes, key, completed, settings.space[key])
    heading = f"{settings.metric}, completed trials (orange: the best)"
    panels[0].set_title(heading, loc="left", fontsize=TEXT_SIZE, color=INK)
    finish(figure).savefig(target)


def _draw_values(axes: Axes, key: str, completed: Sequence[FrozenTrial], spec: Mapping[str, Any]) -> None:
    """Draw the trials over the searched range of one key, the best in orange."""
    at: list[Any] = [trial.params[key] for trial in completed]
    if not all(isinstance(each, int | float) for each in at):
        at = [str(each) for each in at]
    values = [value(trial) for trial in completed]
    axes.plot(at, values, "o", markersize=4, color=BLUE, alpha=0.7)
    axes.plot(at[:1], values[:1], "o", markersize=6, color=ORANGE)
    dress(axes, x_label=key, grid="both")
    if spec.get("log"):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # plain text, because `finish` turns off math
        axes.xaxis.set_minor_locator(NullLocator())
    if "low" in spec:
        axes.update_datalim([(spec["low"], values[0]), (spec["high"], values[0])])
        axes.autoscale_view()
