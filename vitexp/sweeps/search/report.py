"""The results of a search: a table in the terminal, and files and figures in its folder."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from vitexp.sweeps.search.study import FOLDER, Settings, value
from vitexp.system.disk import typed, write_atomically
from vitexp.text import markdown_table, plural

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_BEST: Final = 10  # rows of the printed table
_STATES: Final = {"COMPLETE": "completed", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "unfinished"}
# With fewer trials, or fewer completed ones, importances would be noise.
_ENOUGH: Final = 10
_ENOUGH_COMPLETED: Final = 3


def report(
    study: Study,
    *,
    settings: Settings,
    folder: Path,
    command: Callable[[FrozenTrial], str],
    console: Console,
    write: bool,
) -> None:
    """Print the best trials, and `write` trials.csv, search.md, history.png and importance.png into `folder`.

    command: returns the command line that repeats a trial.
    """
    trials = study.get_trials(deepcopy=False)
    best = ranked(trials, settings)[:_BEST]
    title = f"{folder.name}: {_counts(trials)}"
    keys = list(settings.space)
    headings = ["trial", settings.metric, "epochs", *_short(keys)]
    rows = [
        [str(trial.number), _digits(trial.value), _epochs(trial), *(_digits(trial.params[key], 3) for key in keys)]
        for trial in best
    ]
    note = f"Best trials by {settings.metric}. The test set was not used to choose."
    repeat = command(best[0]) if best else None

    files = []
    if write:
        write_atomically(folder / "trials.csv", _csv(trials, keys, settings.metric))
        text = f"# {title}\n\n{markdown_table(headings, rows, ['right'] * len(headings))}\n{note}\n"
        text += f"\nTo repeat the best trial:\n\n```\n{repeat}\n```\n" if repeat else ""
        write_atomically(folder / "search.md", text)
        files = ["trials.csv", "search.md", *_draw(study, settings, folder)]

    if rows:
        # In a narrow terminal, headings have several lines and keys are left out, but words and numbers stay whole.
        words = [heading.replace("_", " ").replace("/", " ") for heading in headings]
        columns = zip(words, *rows, strict=True)
        widths = [max(len(part) for part in (*heading.split(), *values)) for heading, *values in columns]
        kept = sum(sum(widths[:end]) + end + 1 <= console.width for end in range(1, len(widths) + 1))
        caption = f"{note} Not shown: {', '.join(headings[kept:])}." if headings[kept:] else note
        table = Table(title=title, caption=caption, padding=(0, 0), title_justify="left", caption_justify="left")
        for heading, width in zip(words[:kept], widths[:kept], strict=True):
            table.add_column(heading, justify="right", min_width=width)
        for row in rows:
            table.add_row(*row[:kept])
        console.print(table)
    else:
        console.print(title, highlight=False)
    lines = {"best": f"trial {best[0].number}, {settings.metric} {_digits(best[0].value)}"} if best else {}
    lines |= {"repeat": repeat} if repeat else {}
    lines |= {"trials": f"{typed(folder)}/{', '.join(files)}"} if files else {}
    for name, line in lines.items():
        console.print(f"{name:<9} {line}", soft_wrap=True, markup=False, highlight=False)


def ranked(trials: Sequence[FrozenTrial], settings: Settings) -> list[FrozenTrial]:
    """Return the completed trials, the best first."""
    sign = -1 if settings.direction == "maximize" else 1
    completed = [trial for trial in trials if trial.state.name == "COMPLETE"]
    return sorted(completed, key=lambda trial: (sign * value(trial), trial.number))


def _counts(trials: Sequence[FrozenTrial]) -> str:
    """Return "30 trials: 20 completed, 9 pruned, 1 failed"."""
    states = [_STATES[trial.state.name] for trial in trials]
    parts = [f"{states.count(state)} {state}" for state in _STATES.values() if state in states]
    return plural(len(trials), "trial") + (f": {', '.join(parts)}" if parts else "")


def _csv(trials: Sequence[FrozenTrial], keys: Sequence[str], metric: str) -> str:
    """Return one line per trial; the value of a pruned trial is the last that it reported."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", metric, "epochs", *keys, "folder"])
    for trial in trials:
        params = [trial.params.get(key) for key in keys]
        state = _STATES[trial.state.name]
        writer.writerow([trial.number, state, trial.value, _epochs(trial), *params, trial.user_attrs.get(FOLDER)])
    return text.getvalue()


def _draw(study: Study, settings: Settings, folder: Path) -> list[str]:
    """Draw the figures for which there are enough trials; return the names of their files."""
    trials = study.get_trials(deepcopy=False)
    completed = ranked(trials, settings)
    if not completed:
        return []
    from vitexp.sweeps.search.figures import draw_history, draw_importance  # matplotlib

    draw_history(trials, folder / "history.png", settings=settings, title=folder.name)
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    few = len(completed) + len(pruned) < _ENOUGH or len(completed) < _ENOUGH_COMPLETED
    if few or len(settings.space) < 2:
        return ["history.png"]
    importances = _importances(completed, pruned, settings)
    draw_importance(importances, completed, folder / "importance.png", settings=settings, title=folder.name)
    return ["history.png", "importance.png"]


def _importances(
    completed: Sequence[FrozenTrial], pruned: Sequence[FrozenTrial], settings: Settings
) -> dict[str, float]:
    """Return how much each key contributes to being in the best quarter (PED-ANOVA, Watanabe et al. 2023); sum 1.

    Only membership in the best quarter counts, so pruned trials are included as the worst, whatever they would have
    reached.
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
    """Return the last word of each key if it is unique, otherwise the whole key."""
    words = [key.rpartition(".")[2] for key in keys]
    return [word if words.count(word) == 1 else key for word, key in zip(words, keys, strict=True)]


def _epochs(trial: FrozenTrial) -> str:
    """Return the number of reported epochs; "" without pruning, when none are reported."""
    return "" if trial.last_step is None else str(trial.last_step)


def _digits(number: Any, digits: int = 4) -> str:
    return f"{number:.{digits}g}" if isinstance(number, float) else str(number)
