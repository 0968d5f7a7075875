"""What a search has found: a table in the terminal, and files and pictures in its folder."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from vitexp.sweeps.search import figures as search_figures
from vitexp.sweeps.search.study import Settings, noted_folder, value
from vitexp.system.disk import typed, write_atomically

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_BEST: Final = 10  # rows of the printed table
_STATES: Final = {"COMPLETE": "completed", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "unfinished"}
# Fewer trials say nothing of what matters; nor do fewer that were completed.
_ENOUGH: Final = 10
_ENOUGH_COMPLETED: Final = 3


def report(
    study: Study,
    settings: Settings,
    *,
    folder: Path,
    command: Callable[[FrozenTrial], str],
    console: Console,
) -> None:
    """Print the best trials, and write trials.csv, search.md, history.png and importance.png into `folder`.

    command: of a trial, the line that repeats it.
    """
    trials = study.get_trials(deepcopy=False)
    best = ranked(trials, settings)[:_BEST]
    title = f"{folder.name}: {_counted(trials)}"
    keys = list(settings.space)
    heads = ["trial", settings.metric, "epochs", *_short(keys)]
    rows = [
        [str(trial.number), _shown(trial.value), _epochs(trial), *(_shown(trial.params[key], 3) for key in keys)]
        for trial in best
    ]
    note = f"The best on validation ({settings.metric}); nothing here has looked at the test set."
    repeat = command(best[0]) if best else None

    write_atomically(folder / "trials.csv", _csv(trials, keys, settings.metric))
    write_atomically(folder / "search.md", _markdown(title, heads, rows, note, repeat))
    pictures = _draw(study, settings, folder)

    if rows:
        table = Table(title=title, caption=note, padding=(0, 0), title_justify="left", caption_justify="left")
        for head in heads:
            table.add_column(head.replace("_", " ").replace("/", " "), justify="right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        console.print(title, highlight=False)
    lines = {"best": f"trial {best[0].number}, {settings.metric} {_shown(best[0].value)}"} if best else {}
    lines |= {"repeat": repeat} if repeat else {}
    lines |= {"trials": f"{typed(folder)}/trials.csv, search.md{''.join(f', {name}' for name in pictures)}"}
    for name, text in lines.items():
        console.print(f"{name:<9} {text}", soft_wrap=True, markup=False, highlight=False)


def ranked(trials: Sequence[FrozenTrial], settings: Settings) -> list[FrozenTrial]:
    """The completed trials, the best first."""
    sign = -1 if settings.direction == "maximize" else 1
    completed = [trial for trial in trials if trial.state.name == "COMPLETE"]
    return sorted(completed, key=lambda trial: (sign * value(trial), trial.number))


def _counted(trials: Sequence[FrozenTrial]) -> str:
    """ "30 trials: 20 completed, 9 pruned, 1 failed" """
    states = [_STATES[trial.state.name] for trial in trials]
    parts = [f"{states.count(state)} {state}" for state in _STATES.values() if state in states]
    return f"{len(trials)} trial{'s' * (len(trials) != 1)}" + (f": {', '.join(parts)}" if parts else "")


def _csv(trials: Sequence[FrozenTrial], keys: Sequence[str], metric: str) -> str:
    """A line a trial; the value of a pruned one is its last report."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", metric, "epochs", *keys, "folder"])
    for trial in trials:
        params = [trial.params.get(key) for key in keys]
        state = _STATES[trial.state.name]
        writer.writerow([trial.number, state, trial.value, _epochs(trial), *params, noted_folder(trial)])
    return text.getvalue()


def _markdown(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], note: str, repeat: str | None) -> str:
    table = [heads, ["---:"] * len(heads), *rows]
    lines = [f"# {title}", "", *("| " + " | ".join(row) + " |" for row in table), "", note]
    if repeat:
        lines += ["", "The best trial again:", "", "```", repeat, "```"]
    return "\n".join(lines) + "\n"


def _draw(study: Study, settings: Settings, folder: Path) -> list[str]:
    """The names of the pictures that could be drawn."""
    trials = study.get_trials(deepcopy=False)
    completed = ranked(trials, settings)
    if not completed:
        return []
    search_figures.draw_history(trials, folder / "history.png", settings=settings, title=folder.name)
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    few = len(completed) + len(pruned) < _ENOUGH or len(completed) < _ENOUGH_COMPLETED
    if few or len(settings.space) < 2:
        return ["history.png"]
    importances = _importances(completed, pruned, settings)
    search_figures.draw_importance(
        importances, completed, folder / "importance.png", settings=settings, title=folder.name
    )
    return ["history.png", "importance.png"]


def _importances(
    completed: Sequence[FrozenTrial], pruned: Sequence[FrozenTrial], settings: Settings
) -> dict[str, float]:
    """Share of each key in what sets the best quarter of the trials apart (PED-ANOVA, Watanabe et al. 2023).

    It asks only which trials are among the best: those that were pruned are not, whatever they would have reached.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    values = [*map(value, completed), *(value(completed[-1]) for _ in pruned)]
    ranks = optuna.create_study(direction=settings.direction)
    for trial, reached in zip([*completed, *pruned], values, strict=True):
        ranks.add_trial(optuna.create_trial(params=trial.params, distributions=trial.distributions, value=reached))
    quantile = min(0.25, len(completed) / len(ranks.trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_param_importances(ranks, evaluator=PedAnovaImportanceEvaluator(target_quantile=quantile))


def _short(keys: Sequence[str]) -> list[str]:
    """Their last words, where these are enough to tell them apart."""
    words = [key.rpartition(".")[2] for key in keys]
    return [word if words.count(word) == 1 else key for word, key in zip(words, keys, strict=True)]


def _epochs(trial: FrozenTrial) -> str:
    """Those that were reported; none are without pruning."""
    return "" if trial.last_step is None else str(trial.last_step)


def _shown(number: Any, digits: int = 4) -> str:
    return f"{number:.{digits}g}" if isinstance(number, float) else str(number)
