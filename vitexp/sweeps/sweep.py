"""One sweep: plan its trials, run those that are not completed, show the table."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from vitexp.config.check import check_component, check_keys
from vitexp.config.compose import user_searchpath
from vitexp.config.files import load_file, option_file
from vitexp.config.overrides import command_line, quoted, with_quoted_paths
from vitexp.config.schema import CONTRACTS, SWEEP
from vitexp.errors import ConfigError, UserError, reason, require
from vitexp.sweeps.engines import Engine, run_trials
from vitexp.sweeps.engines.trial import Trial
from vitexp.sweeps.ensemble import ensembles
from vitexp.sweeps.folder import Sweep, hold_if_free, hold_sweep
from vitexp.sweeps.grid import Plan, plan
from vitexp.sweeps.search.search import search
from vitexp.sweeps.tables import formats
from vitexp.sweeps.tables.page import write_page
from vitexp.sweeps.tables.results import read
from vitexp.sweeps.tables.table import Table, build_table
from vitexp.sweeps.tables.wandb_report import save_report
from vitexp.sweeps.tables.wandb_table import log_to_wandb
from vitexp.sweeps.view import View
from vitexp.system.disk import typed, write_atomically
from vitexp.system.terminal import plain_console
from vitexp.system.wandb_mode import resolve_wandb_mode

_GROUPS = ("ablation", "search", "engine", "hydra")
_ONE = (
    "one combination, so that nothing is compared; commas separate several values, such as optim.lr=1e-4,3e-4 "
    "seed=0,1,2"
)


class TrialsFailed(UserError):
    """The sweep has run, and some of its trials failed."""

    exit_code = 1


def own_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the command line for conf/sweep.yaml: overrides of the trials are collected in one key, `trials`."""
    own: list[str] = []
    for_trials: list[str] = []
    for argument in arguments:
        key = re.split(r"[.=@]", argument.lstrip("+~"), maxsplit=1)[0]
        is_own = argument.startswith("-") or "=" not in argument or key in (*SWEEP, *_GROUPS)
        (own if is_own else for_trials).append(argument)
    own, for_trials = with_quoted_paths(own), with_quoted_paths(for_trials, is_sweep=True)
    return [*own, f"trials=[{','.join(map(quoted, for_trials))}]"] if for_trials else own


def sweep(config: DictConfig) -> None:
    """Run the sweep that `config`, composed from conf/sweep.yaml, describes; or only show its table.

    Raises ConfigError if a trial cannot work, before any has started, and TrialsFailed at the end if some failed; a
    search raises NothingFound if all failed. Ctrl-C ends the process with code 130.
    """
    check_keys({key: config[key] for key in SWEEP}, SWEEP)
    arguments, choices = list(config.trials), HydraConfig.get().runtime.choices
    chosen, searched = choices["ablation"], choices["search"]
    if chosen and searched:
        raise ConfigError(f"ablation={chosen} and search={searched} are two sweeps; run one after the other.")
    if config.report:
        require("wandb_workspaces", needed_by="report=true")
        if searched:
            raise ConfigError("report=true reports on the rows of an ablation or a grid; drop it for a search.")
    if config.folds and searched:
        raise ConfigError(
            f"folds={config.folds} repeats the rows of an ablation or a grid, not a search; search first, and then "
            "repeat the best trial with folds."
        )
    if not chosen and not searched and not arguments and not config.folds:
        raise ConfigError(
            "nothing to sweep: give ablation=NAME, search=NAME or folds=5, or several values for a key "
            "(optim.lr=1e-4,3e-4)."
        )
    kind = f"ablation={chosen}" if chosen else f"search={searched}" if searched else "grid"
    of_folds = [f"data.folds={config.folds}"] if config.folds else []
    this, log_dir = Sweep.of(kind, [*arguments, *of_folds]), Path(config.log_dir).expanduser().resolve()
    # Earlier versions named the folder after the file, and a grid after a hash.
    grid = f"grid-{hashlib.sha256(' '.join(arguments).encode()).hexdigest()[:6]}"
    earlier = log_dir / (chosen or searched or grid)
    engine, console, searchpath = _engine(config.engine), plain_console(), user_searchpath()
    group, _, option = kind.partition("=")
    file = option_file(group, option, searchpath) if option else None
    if file is not None and file.exists():  # not in a package
        load_file(file)  # Hydra merges a list, too
    named = "" if file is None else typed(file)
    if group in ("ablation", "search") and group not in config:
        raise ConfigError(f"{named} is not read as a file of {group}; remove its # @package line.")
    GlobalHydra.instance().clear()  # the configurations of the trials are composed next
    try:
        if searched:
            node: Any = OmegaConf.to_container(config.search, resolve=True)
            search(
                node,
                log_dir / (config.name or this.name),
                config.show,
                file=named,
                earlier=None if config.name else earlier,
                arguments=arguments,
                searchpath=searchpath,
                engine=engine,
                console=console,
            )
            return
        # Unresolved: its overrides may contain ${...}, which refer to the configuration of the trials.
        ablation: Any = OmegaConf.to_container(config.ablation) if chosen else None
        planned = plan(
            partial(this.folder, log_dir, name=config.name, earlier=earlier),
            ablation=ablation,
            arguments=arguments,
            folds=config.folds,
            searchpath=searchpath,
            file=named,
            earlier=None if config.name else earlier,
            check_inputs=engine.runs_here and not config.show,
        )
        _run_rows(planned, this, config, engine, console=console)
    except KeyboardInterrupt:
        console.print("stopped; the same command resumes the sweep")
        sys.exit(130)


def _engine(node: DictConfig) -> Engine:
    check_component(node, group="engine")
    try:
        engine = instantiate(node, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise
    if not isinstance(engine, Engine):
        raise ConfigError(f"engine._target_={node._target_} must be {CONTRACTS['engine']}.")
    return engine


def _run_rows(planned: Plan, this: Sweep, config: DictConfig, engine: Engine, *, console: Console) -> None:
    """Run the trials of an ablation or a grid and show their table, even when interrupted; or only show it."""
    table = _table(planned, config)  # raises for a wrong metric or baseline before anything runs
    folder, left = planned.folder, list[Trial]()
    if config.report and planned.wandb is None:
        raise ConfigError("report=true needs trials that log to W&B; use logger=default or logger=wandb.")
    if config.show:
        _print(table, console)
        with hold_if_free(folder, console) as is_ours:
            if is_ours:
                this.claim(folder)
                _write(table, planned, console=console, arguments=config.trials)
        if config.report:
            _tell_wandb(table, planned, console, with_report=True, with_table=False)
        return
    with hold_sweep(folder):
        this.claim(folder)
        if len(planned.trials) == 1:
            console.print(_ONE, soft_wrap=True, highlight=False)
        try:
            with View(folder.name, planned.trials, console=console) as view:
                left = run_trials(planned.trials, engine, on_event=view)
        finally:
            table = _table(planned, config)
            _print(table, console)
            _write(table, planned, console=console, arguments=config.trials)
        _tell_wandb(table, planned, console, with_report=config.report)
    if left:
        raise TrialsFailed(
            f"{len(left)} of {len(planned.trials)} trials failed; see sweep.html, and repeat the command to retry them."
        )


def _table(planned: Plan, config: DictConfig) -> Table:
    """Return the table of the records so far, row by row; trials run seed by seed."""
    order = {row.name: number for number, row in enumerate(planned.rows)}
    outcomes = read(sorted(planned.trials, key=lambda trial: order[trial.row]))
    return build_table(
        outcomes,
        title=planned.folder.name,
        metric=config.metric,
        baseline=config.baseline,
        folds=planned.folds,
        ensembles={} if planned.folds is None else ensembles(outcomes, metric=config.metric),
        is_cumulative=planned.is_cumulative,
    )


def _print(table: Table, console: Console) -> None:
    console.print(formats.to_rich(table, width=console.width))


def _tell_wandb(table: Table, planned: Plan, console: Console, *, with_report: bool, with_table: bool = True) -> None:
    """Log the table, and save the report, in W&B. All trials are recorded, so that a failure is only a message."""
    if planned.wandb is None:
        return
    name, options = planned.folder.name, planned.wandb
    try:
        if with_table:
            where = log_to_wandb(table, planned.folder, group=name, **options)
            console.print(f"wandb     {where}", soft_wrap=True, highlight=False)
        if with_report and resolve_wandb_mode(options["mode"]) == "offline":
            console.print("report    not saved, because W&B is offline; once online: show=true report=true")
        elif with_report:
            for link in save_report(table, group=name, project=options["project"], entity=options["entity"]):
                console.print(f"report    {link}", soft_wrap=True, highlight=False)
    except Exception as error:  # any: there is a service and a network on the other side
        console.print(f"W&B failed ({reason(error)}); all results are in {typed(planned.folder)}", soft_wrap=True)


def _write(table: Table, planned: Plan, *, console: Console, arguments: Sequence[str]) -> None:
    """Write the table in every format next to the trials. arguments: overrides of the trials.

    Raises UserError if the disk refuses it.
    """
    folder = planned.folder
    own = [argument for argument in sys.argv[1:] if not argument.startswith(("show=", "trials="))]
    overrides = {row.name: row.overrides for row in planned.rows}
    try:
        for suffix, render in (("md", formats.to_markdown), ("csv", formats.to_csv), ("tex", formats.to_latex)):
            write_atomically(folder / f"table.{suffix}", render(table))
        if table.has_values:
            from vitexp.sweeps.tables.figure import draw, draw_curves  # matplotlib

            draw(table, folder / "figure.png")
            draw_curves(table, folder / "curves.png")
        page = write_page(table, folder, overrides=overrides, command=command_line("sweep", *own, *arguments))
    except OSError as error:
        raise UserError(
            f"cannot write the tables in {typed(folder)}: {error.strerror or error}; with free space, show=true "
            "writes them."
        ) from error
    console.print(f"page      {typed(page)}", soft_wrap=True, highlight=False)
    console.print(f"tables    {typed(folder)}/table.md, .csv, .tex", soft_wrap=True, highlight=False)
