"""A search: Optuna chooses rounds of trials, which run like the trials of any sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from rich.console import Console

from vitexp.config.compose import searchpath_override
from vitexp.config.overrides import command_line, quoted
from vitexp.errors import ConfigError, UserError, require
from vitexp.runs.record import RunRecord
from vitexp.sweeps.engines import Engine, run_trials
from vitexp.sweeps.engines.trial import Event, Finished, Ready, Trial
from vitexp.sweeps.folder import hold_if_free, hold_sweep, refuse_other_kind
from vitexp.sweeps.grid import GIVEN_BY_THE_SWEEP, SEED, in_place, plan
from vitexp.sweeps.search.report import report
from vitexp.sweeps.search.study import FOLDER, PRUNED, Settings, ask, is_started, journal, open_study
from vitexp.sweeps.tables.results import read
from vitexp.sweeps.view import View

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


class NothingFound(UserError):
    """No trial of the search was completed."""

    exit_code = 1


def search(
    node: Mapping[str, Any],
    folder: Path,
    show: bool = False,
    *,
    file: str = "the search",
    earlier: Path | None = None,
    arguments: Sequence[str],
    searchpath: Sequence[str] = (),
    engine: Engine,
    console: Console,
) -> None:
    """Run the search `node`, a file of conf/search/, until all its trials have run, or only show the results (`show`).

    folder: the folder of the sweep. file: the file with `node`, in messages. earlier: another folder, which is used
    instead if this search has started there. arguments: overrides for all trials. searchpath: URLs of folders with
    more config options, which the trials use too.

    Raises ConfigError if a trial cannot work, before any has started, and NothingFound if none was completed.
    """
    require("optuna", needed_by="search=NAME", alternative="a grid such as optim.lr=1e-4,1e-3")
    settings = Settings.of(node, file=file)
    this = _Search(
        settings,
        folder,
        file=file,
        arguments=arguments,
        engine=engine,
        console=console,
        searchpath=searchpath,
        check_inputs=engine.runs_here and not show,
    )
    if earlier is not None and not journal(folder).exists() and is_started(earlier, configuration=this.configuration):
        this.folder = folder = earlier
    if show and not journal(folder).exists():
        raise ConfigError(f"there is no search in {folder} yet; drop show=true to start it.")
    refuse_other_kind(folder)
    output = partial(report, settings=settings, folder=folder, command=this.command, console=console)
    if show:
        study = open_study(folder, settings, configuration=this.configuration)
        with hold_if_free(folder, console) as is_ours:
            output(study, write=is_ours)
        return
    with hold_sweep(folder):
        study = open_study(folder, settings, configuration=this.configuration)
        try:
            this.run(study)
        finally:
            output(study, write=True)
    if not any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        raise NothingFound(f"no trial was completed; see trial.log in the folders listed in {folder}/trials.csv.")


class _Search:
    """Rounds of trials, each a training run at a point of the space, until the study has as many as requested."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        file: str,
        arguments: Sequence[str],
        engine: Engine,
        console: Console,
        searchpath: Sequence[str],
        check_inputs: bool,
    ) -> None:
        self.settings, self.folder, self.searchpath, self.check_inputs = settings, folder, searchpath, check_inputs
        self.engine, self.console = engine, console
        self.slots = settings.startup
        self.unfinished: dict[Path, list[int]] = {}  # numbers of the points without an outcome, by run folder
        # The checkpoint of a trial is chosen by the metric that compares the trials.
        chosen_by = (f"checkpoint.monitor={settings.metric}", f"checkpoint.mode={settings.direction[:3]}")
        self.arguments = (*chosen_by, *arguments)
        for key in settings.space:
            if key in (SEED, *GIVEN_BY_THE_SWEEP):
                raise ConfigError(f"{file}, space: {key} cannot be searched.")
            if any(argument.lstrip("+~").startswith(f"{key}=") for argument in arguments):
                raise ConfigError(f"{key} is searched ({file}, space) and cannot also be given a value.")
        for corner in settings.corners():
            with in_place(f"{file}, space"):
                self._plan("corner", _overrides(corner))
        self.configuration = self._plan(folder.name, ()).folder.name

    def run(self, study: Study) -> None:
        """Run the trials, starting with any that an earlier search left unfinished."""
        from optuna.trial import TrialState

        points = study.get_trials(states=(TrialState.RUNNING,))
        while points or (missing := self._missing(study)):
            self._run_round(study, points or [ask(study, self.settings) for _ in range(missing)])
            points = []

    def command(self, point: FrozenTrial) -> str:
        """Return the command line that repeats a trial as an independent run."""
        words = [*self.arguments, *_overrides(point.params), *searchpath_override(self.searchpath)]
        return command_line("train", *words)

    def _missing(self, study: Study) -> int:
        """Return the number of trials of the next round."""
        existing = len(study.get_trials(deepcopy=False))
        return max(0, min(self.settings.parallel or self.slots, self.settings.trials - existing))

    def _run_round(self, study: Study, points: Sequence[FrozenTrial]) -> None:
        from optuna.trial import TrialState

        batch: dict[Path, Trial] = {}
        for point in points:
            try:
                trial = self._trial(point)
            except ConfigError as error:  # each value is valid, but not in this combination
                self.console.print(f"failed     trial {point.number}: {error}", soft_wrap=True, highlight=False)
                study.tell(point.number, state=TrialState.FAIL)
                continue
            study._storage.set_trial_user_attr(point._trial_id, FOLDER, trial.folder.name)
            batch[trial.folder] = trial  # a point that is chosen twice runs once
            self.unfinished.setdefault(trial.folder, []).append(point.number)
        trials, numbers = list(batch.values()), [point.number for point in points]
        with View(f"{self.folder.name} {min(numbers)}–{max(numbers)}", trials, console=self.console) as view:

            def on_event(event: Event) -> None:
                view(event)
                if isinstance(event, Ready):
                    self.slots = event.slots
                elif isinstance(event, Finished):  # right away: running trials are compared with it
                    self._tell(study, event.trial)

            run_trials(trials, self.engine, on_event=on_event)
        for trial in trials:  # completed before this round
            self._tell(study, trial)

    def _tell(self, study: Study, trial: Trial) -> None:
        """Record the outcome of a trial in the study, for every point that it stands for."""
        from optuna.trial import TrialState

        [outcome] = read([trial])
        numbers, points = self.unfinished.pop(trial.folder, []), study.get_trials(deepcopy=False)
        value = outcome.number("metrics", "val", self.settings.metric.partition("/")[2])
        failed = value is None or outcome.status != "completed"
        pruned = bool(outcome.get("pruned"))  # in an earlier round, which chose the same point
        if outcome.result and not failed and any(points[number].user_attrs.get(PRUNED) for number in numbers):
            RunRecord(trial.folder, outcome.result).update(pruned=True)
            pruned = True
        for number in numbers:
            if failed:
                study.tell(number, state=TrialState.FAIL)
            elif pruned:  # it keeps the last value that it reported
                study.tell(number, state=TrialState.PRUNED)
            else:
                study.tell(number, value)

    def _trial(self, point: FrozenTrial) -> Trial:
        """Return the trial of a point. Raises ConfigError if its configuration cannot work."""
        reports: tuple[str, ...] = ()
        if prune := self.settings.prune:
            options: dict[str, Any] = {
                "_target_": "vitexp.sweeps.search.pruning.Pruning",
                "journal": str(journal(self.folder)),
                "trial": point.number,
                "metric": self.settings.metric,
                "startup": prune["startup"],
                "warmup": prune["warmup"],
            }
            reports = tuple(
                f"+callbacks.pruning.{key}={quoted(value) if isinstance(value, str) else value}"
                for key, value in options.items()
            )
        return self._plan(f"trial {point.number}", (*_overrides(point.params), *reports))

    def _plan(self, row: str, overrides: Sequence[str]) -> Trial:
        rows = {"rows": [{"name": row, "set": list(overrides)}]}
        planned = plan(
            self.folder,
            ablation=rows,
            arguments=self.arguments,
            searchpath=self.searchpath,
            check_inputs=self.check_inputs,
        )
        if len(planned.trials) > 1:
            raise ConfigError("a search takes one value per key; list what varies in search.space.")
        return planned.trials[0]


def _overrides(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a point as overrides."""
    return tuple(_override(key, value) for key, value in params.items())


def _override(key: str, value: Any) -> str:
    """Return the override for a value; text is quoted only if Hydra cannot read it, because it may be a list."""
    if value is None or isinstance(value, bool):
        return f"{key}={json.dumps(value)}"
    try:
        if not OverridesParser.create().parse_override(f"{key}={value}").is_sweep_override():
            return f"{key}={value}"
    except HydraException:
        pass
    return f"{key}={quoted(str(value))}"
