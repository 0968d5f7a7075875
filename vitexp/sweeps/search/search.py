"""A search: Optuna chooses rounds of trials, which run like all trials of sweeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vitexp.config.compose import searchpath_override
from vitexp.config.overrides import command_line
from vitexp.errors import ConfigError, UserError, require
from vitexp.runs.record import RunRecord
from vitexp.sweeps.engines import Engine, run_trials
from vitexp.sweeps.engines.trial import Event, Finished, Ready, Trial
from vitexp.sweeps.grid import plan
from vitexp.sweeps.search.report import report
from vitexp.sweeps.search.study import Settings, ask, journal, note_folder, open_study, tell, was_pruned
from vitexp.sweeps.tables.results import Cell, read
from vitexp.sweeps.view import View
from vitexp.system.lock import hold

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


class NothingFound(UserError):
    """No trial of the search was completed."""

    exit_code = 1


def search(
    node: Mapping[str, Any],
    *,
    name: str,
    log_dir: Path,
    arguments: Sequence[str],
    engine: Engine,
    show: bool,
    console: Console,
    searchpath: Sequence[str] = (),
) -> None:
    """Run the search `node`, a file of conf/search/, until it has its trials; or only show the results so far.

    arguments: overrides for all trials. searchpath: URLs of folders with further options, for the trials too.

    Raises ConfigError if a trial cannot work, before any has started, and NothingFound if none was completed.
    """
    require("optuna", needed_by="search=NAME", alternative="a grid such as optim.lr=1e-4,1e-3")
    settings = Settings.of(node)
    trials = _Trials(settings, name=name, log_dir=log_dir, arguments=arguments, searchpath=searchpath)
    folder = log_dir / name
    if show and not journal(folder).exists():
        raise ConfigError(f"there is no search in {folder} yet; drop show=true to start it.")
    folder.mkdir(parents=True, exist_ok=True)
    if show:
        study = open_study(folder, settings, configuration=trials.configuration)
        report(study, settings, folder=folder, command=trials.command, console=console)
        return
    with hold(folder / "search.lock", wait=False):
        study = open_study(folder, settings, configuration=trials.configuration)
        try:
            _Rounds(study, settings, trials, engine, folder=folder, console=console).run()
        finally:
            report(study, settings, folder=folder, command=trials.command, console=console)
    if not any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        raise NothingFound(
            f"no trial was completed; {folder}/trials.csv names their folders, where trial.log says why."
        )


class _Trials:
    """The training runs that correspond to the points of a space."""

    def __init__(
        self, settings: Settings, *, name: str, log_dir: Path, arguments: Sequence[str], searchpath: Sequence[str]
    ) -> None:
        self.settings, self.name, self.log_dir, self.searchpath = settings, name, log_dir, searchpath
        # The checkpoint of a trial is chosen by the metric that compares the trials.
        chosen_by = (f"checkpoint.monitor={settings.metric}", f"checkpoint.mode={settings.direction[:3]}")
        self.arguments = (*chosen_by, *arguments)
        settings.distributions()
        for key in settings.space:
            if any(argument.lstrip("+~").startswith(f"{key}=") for argument in arguments):
                raise ConfigError(f"{key} is searched (search.space) and cannot also be given a value.")
        for number, corner in enumerate(settings.corners()):
            self._plan(f"corner {number + 1} of search.space", _overrides(corner))
        self.configuration = self._plan(name, ()).folder.name

    def __call__(self, point: FrozenTrial) -> Trial:
        """Return the trial of a point. Raises ConfigError if its configuration cannot work."""
        reports: tuple[str, ...] = ()
        if prune := self.settings.prune:
            options: dict[str, Any] = {
                "_target_": "vitexp.sweeps.search.pruning.Pruning",
                "journal": journal(self.log_dir / self.name),
                "trial": point.number,
                "metric": self.settings.metric,
                "startup": prune["startup"],
                "warmup": prune["warmup"],
            }
            reports = tuple(f"+callbacks.pruning.{key}={value}" for key, value in options.items())
        return self._plan(f"trial {point.number}", (*_overrides(point.params), *reports))

    def command(self, point: FrozenTrial) -> str:
        """Return the command line that repeats a trial as an independent run."""
        words = [*self.arguments, *_overrides(point.params), *searchpath_override(self.searchpath)]
        return command_line("train", *words)

    def _plan(self, row: str, overrides: Sequence[str]) -> Trial:
        rows = {"rows": [{"name": row, "set": overrides}]}
        planned = plan(
            name=self.name, log_dir=self.log_dir, ablation=rows, arguments=self.arguments, searchpath=self.searchpath
        )
        if len(planned.trials) > 1:
            raise ConfigError("a search takes one value per key; list what varies in search.space.")
        return planned.trials[0]


class _Rounds:
    """Rounds of trials, until the study has as many as requested."""

    def __init__(
        self, study: Study, settings: Settings, trials: _Trials, engine: Engine, *, folder: Path, console: Console
    ) -> None:
        self.study, self.settings, self.trials, self.engine = study, settings, trials, engine
        self.folder, self.console = folder, console
        self.slots = settings.startup
        self.unfinished: dict[Path, list[int]] = {}  # numbers of the points without an outcome, by run folder

    def run(self) -> None:
        """Run the trials, first those that an earlier search has left unfinished."""
        from optuna.trial import TrialState

        points = self.study.get_trials(states=(TrialState.RUNNING,))
        while points or (missing := self._missing()):
            self._run(points or [ask(self.study, self.settings) for _ in range(missing)])
            points = []

    def _missing(self) -> int:
        """Return the number of trials of the next round."""
        existing = len(self.study.get_trials(deepcopy=False))
        return max(0, min(self.settings.parallel or self.slots, self.settings.trials - existing))

    def _run(self, points: Sequence[FrozenTrial]) -> None:
        batch: dict[Path, Trial] = {}
        for point in points:
            try:
                trial = self.trials(point)
            except ConfigError as error:  # each value is valid, but not in this combination
                self.console.print(f"failed     trial {point.number}: {error}", soft_wrap=True, highlight=False)
                tell(self.study, point.number, None)
                continue
            note_folder(self.study, point, trial.folder.name)
            batch[trial.folder] = trial  # a point that is chosen twice runs once
            self.unfinished.setdefault(trial.folder, []).append(point.number)
        first, last = min(point.number for point in points), max(point.number for point in points)
        with View(f"{self.folder.name} {first}–{last}", list(batch.values()), console=self.console) as view:

            def on_event(event: Event) -> None:
                view(event)
                if isinstance(event, Ready):
                    self.slots = event.slots
                elif isinstance(event, Finished):  # right away: running trials are compared with it
                    self._tell(event.trial)

            run_trials(list(batch.values()), self.engine, folder=self.folder, on_event=on_event)
        for trial in batch.values():  # those that were completed before
            self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        [outcome] = read([Cell(row=trial.row, seed=trial.seed, folder=trial.folder)])
        value = outcome.number("metrics", "val", self.settings.metric.partition("/")[2])
        completed, numbers = outcome.status == "completed", self.unfinished.pop(trial.folder, [])
        pruned = bool(outcome.get("pruned"))  # in an earlier round, which chose the same point
        if outcome.result and completed and any(was_pruned(self.study, number) for number in numbers):
            RunRecord(trial.folder, outcome.result).update(pruned=True)
            pruned = True
        for number in numbers:
            tell(self.study, number, value if completed else None, pruned=pruned)


def _overrides(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a point as overrides."""
    return tuple(
        f"{key}={json.dumps(value) if value is None or isinstance(value, bool) else value}"
        for key, value in params.items()
    )
