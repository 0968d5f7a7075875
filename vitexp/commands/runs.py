"""List the runs on this disk, the newest first.

    vitexp runs [sort=COLUMN] [data=NAME] [model=NAME] [status=STATUS] [name=NAME] [key=value ...]

sort           date (default) | accuracy | size | name | data | model | status
name           show only runs with this name, run id or NAME/RUN_ID; * and ? match any text, and commas separate
               alternatives, as in the next keys too
data, model    show only runs on this data set, with this model
status         completed | debug | failed | interrupted | running | killed | damaged
trials=true    list every trial of the sweeps; otherwise, a sweep is one row
log_dir        the folder of the runs (default: logs)

The commands accept a name of this list as it is printed: run=NAME/RUN_ID, resume=NAME/RUN_ID.

Accuracy is that of the test set; a sweep shows the range of its trials. A run is "killed" if no process executes it
although it has not ended. In a terminal, long names are shortened in the middle; in a pipe or file, they are complete.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from vitexp.commands.words import read_words, run_command
from vitexp.errors import ConfigError
from vitexp.metrics import METRICS
from vitexp.runs.inventory import Listed, matching, runs_in
from vitexp.text import file_size, plain_table, plural

FILTERS = ("name", "data", "model", "status")
_HEADING = ("run", "date", "data", "model", "accuracy", "size", "status")
_WIDE = 100  # columns of a terminal that also has space for the time of day


@dataclass(frozen=True)
class Row:
    """A row of the table: one run, or all listed trials of a sweep."""

    runs: Sequence[Listed]  # the newest first
    is_sweep: bool

    @property
    def name(self) -> str:
        first = self.runs[0]
        return f"{first.name} ({plural(len(self.runs), 'trial')})" if self.is_sweep else first.path

    @property
    def date(self) -> datetime:
        return self.runs[0].date

    @property
    def data(self) -> str:
        return self._common("data")

    @property
    def model(self) -> str:
        return self._common("model")

    @property
    def status(self) -> str:
        counts = Counter(run.status for run in self.runs)
        if len(counts) == 1 or not self.is_sweep:
            return self.runs[0].status
        if counts["running"]:
            return f"running, {counts['completed']}/{len(self.runs)}"
        return f"{counts['completed']}/{len(self.runs)} completed"

    @property
    def size(self) -> int:
        return sum(run.size for run in self.runs)

    @property
    def accuracy(self) -> float | None:
        """The highest test accuracy, by which a sweep is sorted."""
        return max(self._accuracies, default=None)

    @property
    def _accuracies(self) -> list[float]:
        return [run.accuracy for run in self.runs if run.accuracy is not None]

    def _common(self, key: str) -> str:
        values = {getattr(run, key) for run in self.runs} - {""}
        return "several" if len(values) > 1 else "".join(values)

    def cells(self, *, with_time: bool) -> list[str]:
        """Return the texts of the row; fewer for a damaged record."""
        date = f"{self.date:%Y-%m-%d %H:%M}" if with_time else f"{self.date:%Y-%m-%d}"
        if self.status == "damaged" and not self.is_sweep:
            return [self.name, date, f"damaged: {self.runs[0].problem}"]
        show = METRICS["accuracy"].format
        accuracy = show(self.accuracy)
        if self._accuracies and show(min(self._accuracies)) != accuracy:
            accuracy = f"{100 * min(self._accuracies):.2f}–{accuracy}"
        return [self.name, date, self.data, self.model, accuracy, file_size(self.size), self.status]


_LARGEST_FIRST = ("date", "accuracy", "size")
_SORT = (*_LARGEST_FIRST, "name", "data", "model", "status")


def main(words: Sequence[str]) -> None:
    given = read_words(words, keys=(*FILTERS, "sort", "trials", "log_dir"))
    sort, with_trials = given.choice("sort", _SORT), given.flag("trials")
    log_dir = log_folder(given.get("log_dir"))
    everything = runs_in(log_dir)
    runs = matching(everything, {key: given.get(key) for key in FILTERS if given.get(key)})
    if not runs:
        print(
            f"none of the {plural(len(everything), 'run')} matches" if everything else f"there are no runs in {log_dir}"
        )
        return
    rows = in_order(rows_of(runs, with_trials=with_trials), sort)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    cells = [row.cells(with_time=width is None or width >= _WIDE) for row in rows]
    align: Any = ("left",) * 4 + ("right",) * 2 + ("left",)
    print(plain_table(_HEADING, cells, align, width=width, shrink=(2, 3, 0)), end="")
    print(f"{plural(len(runs), 'run')}, {file_size(sum(run.size for run in runs))}, in {log_dir}")


def log_folder(typed: str) -> Path:
    """Return the folder that log_dir=`typed` names. Raises ConfigError if it is missing."""
    folder = Path(typed or "logs").expanduser()
    if typed and not folder.is_dir():
        raise ConfigError(f"log_dir={typed} is not a folder.")
    return folder


def rows_of(runs: Sequence[Listed], *, with_trials: bool) -> list[Row]:
    """Return one row per run; the trials of a sweep share one unless `with_trials`."""
    rows, sweeps = list[Row](), dict[Path, list[Listed]]()
    for run in runs:
        if with_trials or not run.is_trial:
            rows.append(Row([run], is_sweep=False))
        elif run.folder.parent in sweeps:
            sweeps[run.folder.parent].append(run)
        else:
            rows.append(Row(sweeps.setdefault(run.folder.parent, [run]), is_sweep=True))
    return rows


def in_order(rows: Sequence[Row], sort: str) -> list[Row]:
    """Sort rows by a column: numbers and dates from the largest down, texts by letter; empty cells last."""
    value: Any = attrgetter(sort)
    filled = [row for row in rows if value(row) not in (None, "")]
    empty = [row for row in rows if value(row) in (None, "")]
    return [*sorted(filled, key=value, reverse=sort in _LARGEST_FIRST), *empty]


if __name__ == "__main__":
    run_command(main, __doc__)
