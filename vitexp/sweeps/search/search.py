"""A search: rounds of trials that Optuna asks for, run as all trials of sweeps are."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vitexp.config.compose import searchpath_override
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
    """No trial of the search has come to its end."""

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
    """Run the search `node`, a file of conf/search/, until it has its trials; or only show what it has found.

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
            _Rounds(study, settings, trials, engine, folder=folder, console=console).go()
        finally:
            report(study, settings, folder=folder, command=trials.command, console=console)
    if not any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        raise NothingFound(
            f"no trial was completed; {folder}/trials.csv names their folders, where trial.log says why."
        )


class _Trials:
    """The runs of train.py that stand for the points of a space."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        log_dir: Path,
        arguments: Sequence[str],
        searchpath: Sequence[str] = (),
    ) -> None:
        self.settings, self.name, self.log_dir, self.searchpath = settings, name, log_dir, searchpath
        # The checkpoint of a trial is chosen by the metric that the trials are compared by.
        chosen_by = (f"checkpoint.monitor={settings.metric}", f"checkpoint.mode={settings.mode}")
        self.arguments = (*chosen_by, *arguments)
        settings.distributions()
        for key in settings.space:
            if any(argument.lstrip("+~").startswith(f"{key}=") for argument in arguments):
                raise ConfigError(f"{key} is searched (search.space) and cannot also be given a value.")
        for number, corner in enumerate(settings.corners()):
            self._planned(f"corner {number + 1} of search.space", _overrides(corner))
        self.configuration = self._planned(name, ()).folder.name

    def __call__(self, asked: FrozenTrial) -> Trial:
        """The trial that was asked for. Raises ConfigError for a point at which its configuration cannot work."""
        reports: tuple[str, ...] = ()
        if prune := self.settings.prune:
            options = {
                "_target_": "vitexp.sweeps.search.pruning.Pruning",
                "journal": journal(self.log_dir / self.name),
                "trial": asked.number,
                "metric": self.settings.metric,
                **prune,
            }
            reports = tuple(f"+callbacks.pruning.{key}={value}" for key, value in options.items())
        return self._planned(f"trial {asked.number}", (*_overrides(asked.params), *reports))

    def command(self, asked: FrozenTrial) -> str:
        """The command line that repeats a trial, as a run of its own."""
        words = [*self.arguments, *_overrides(asked.params), *searchpath_override(self.searchpath)]
        return shlex.join(["python", "train.py", *words])

    def _planned(self, row: str, overrides: Sequence[str]) -> Trial:
        rows = {"rows": [{"name": row, "set": overrides}]}
        planned = plan(
            name=self.name, log_dir=self.log_dir, ablation=rows, arguments=self.arguments, searchpath=self.searchpath
        )
        if len(planned.trials) > 1:
            raise ConfigError("a search takes one value per key; list what varies in search.space.")
        return planned.trials[0]


class _Rounds:
    """Asks, runs and tells, until the study has as many trials as were wanted."""

    def __init__(
        self, study: Study, settings: Settings, trials: _Trials, engine: Engine, *, folder: Path, console: Console
    ) -> None:
        self.study, self.settings, self.trials, self.engine = study, settings, trials, engine
        self.folder, self.console = folder, console
        self.slots = settings.startup
        self.running: dict[Path, list[int]] = {}  # asked for, and not told: their numbers by folder

    def go(self) -> None:
        """What was asked for before and has not finished comes first."""
        from optuna.trial import TrialState

        asked = self.study.get_trials(states=(TrialState.RUNNING,))
        while asked or self._wanted():
            self._run(asked or [ask(self.study, self.settings) for _ in range(self._wanted())])
            asked = []

    def _wanted(self) -> int:
        """How many trials to ask for now."""
        there = len(self.study.get_trials(deepcopy=False))
        return max(0, min(self.settings.parallel or self.slots, self.settings.trials - there))

    def _run(self, asked: Sequence[FrozenTrial]) -> None:
        batch: dict[Path, Trial] = {}
        for each in asked:
            try:
                trial = self.trials(each)
            except ConfigError as error:  # each value may stand, but not all of them together
                self.console.print(f"failed     trial {each.number}: {error}", soft_wrap=True, highlight=False)
                tell(self.study, each.number, None)
                continue
            note_folder(self.study, each, trial.folder.name)
            batch[trial.folder] = trial  # chosen twice, it runs once
            self.running.setdefault(trial.folder, []).append(each.number)
        first, last = min(each.number for each in asked), max(each.number for each in asked)
        with View(f"{self.folder.name} {first}–{last}", list(batch.values()), console=self.console) as view:

            def on_event(event: Event) -> None:
                view(event)
                if isinstance(event, Ready):
                    self.slots = event.slots
                elif isinstance(event, Finished):  # at once: those that still run are compared to it
                    self._tell(event.trial)

            run_trials(list(batch.values()), self.engine, folder=self.folder, on_event=on_event)
        for trial in batch.values():  # completed before, and never told
            self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        [outcome] = read([Cell(row=trial.row, seed=trial.seed, folder=trial.folder)])
        value = outcome.number("metrics", "val", self.settings.metric.partition("/")[2])
        completed, numbers = outcome.status == "completed", self.running.pop(trial.folder, [])
        pruned = bool(outcome.get("pruned"))  # in an earlier round, which chose the same point
        if outcome.result and completed and any(was_pruned(self.study, number) for number in numbers):
            RunRecord(trial.folder, outcome.result).update(pruned=True)
            pruned = True
        for number in numbers:
            tell(self.study, number, value if completed else None, pruned=pruned)


def _overrides(params: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{key}={_as_typed(value)}" for key, value in params.items())


def _as_typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
