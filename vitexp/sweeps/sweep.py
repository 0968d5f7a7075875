"""One sweep: plan its trials, run those that are not completed, show the table."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
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
from vitexp.config.overrides import command_line, quoted
from vitexp.config.schema import CONTRACTS, SWEEP
from vitexp.errors import ConfigError, UserError
from vitexp.sweeps.engines import Engine, run_trials
from vitexp.sweeps.grid import Plan, plan
from vitexp.sweeps.search.search import search
from vitexp.sweeps.tables import formats
from vitexp.sweeps.tables.page import write_page
from vitexp.sweeps.tables.results import read
from vitexp.sweeps.tables.table import Table, build_table
from vitexp.sweeps.tables.wandb_table import log_to_wandb
from vitexp.sweeps.view import View
from vitexp.system.disk import typed, write_atomically
from vitexp.system.terminal import plain_console

_GROUPS = ("ablation", "search", "engine", "hydra")


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
    if not chosen and not searched and not arguments:
        raise ConfigError(
            "nothing to sweep: give ablation=NAME or search=NAME, or several values for a key (optim.lr=1e-4,3e-4)."
        )
    name = config.name or chosen or searched or f"grid-{hashlib.sha256(' '.join(arguments).encode()).hexdigest()[:6]}"
    engine, console = _engine(config.engine), plain_console()
    folder, searchpath = Path(config.log_dir).expanduser().resolve() / name, user_searchpath()
    GlobalHydra.instance().clear()  # the configurations of the trials are composed next
    try:
        if searched:
            node: Any = OmegaConf.to_container(config.search, resolve=True)
            search(
                node, folder, config.show, arguments=arguments, searchpath=searchpath, engine=engine, console=console
            )
            return
        # Unresolved: its overrides may contain ${...}, which refer to the configuration of the trials.
        ablation: Any = OmegaConf.to_container(config.ablation) if chosen else None
        planned = plan(
            folder,
            ablation=ablation,
            arguments=arguments,
            searchpath=searchpath,
            check_inputs=engine.runs_here and not config.show,
        )
        _run_rows(planned, config, engine, folder=folder, console=console)
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


def _run_rows(planned: Plan, config: DictConfig, engine: Engine, *, folder: Path, console: Console) -> None:
    """Run the trials of an ablation or a grid, unless config.show, and show their table, even when interrupted."""
    _table(planned, config, folder.name)  # raises for a wrong metric or baseline before anything runs
    left = []
    try:
        if not config.show:
            with View(folder.name, planned.trials, console=console) as view:
                left = run_trials(planned.trials, engine, folder=folder, on_event=view)
    finally:
        table = _table(planned, config, folder.name)
        _show(table, planned, folder=folder, console=console, arguments=config.trials)
    if not config.show and planned.wandb is not None:
        console.print(f"wandb     {log_to_wandb(table, folder, group=folder.name, **planned.wandb)}", soft_wrap=True)
    if left:
        raise TrialsFailed(
            f"{len(left)} of {len(planned.trials)} trials failed; see sweep.html, and repeat the command to retry them."
        )


def _table(planned: Plan, config: DictConfig, title: str) -> Table:
    """Return the table of the records so far, row by row; trials run seed by seed."""
    order = {row.name: number for number, row in enumerate(planned.rows)}
    trials = sorted(planned.trials, key=lambda trial: order[trial.row])
    return build_table(read(trials), title=title, metric=config.metric, baseline=config.baseline)


def _show(table: Table, planned: Plan, *, folder: Path, console: Console, arguments: Sequence[str]) -> None:
    """Print the table, and write it in every format next to the trials. arguments: overrides of the trials."""
    console.print(formats.to_rich(table, compact=console.width < 130))
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, render in (("md", formats.to_markdown), ("csv", formats.to_csv), ("tex", formats.to_latex)):
        write_atomically(folder / f"table.{suffix}", render(table))
    if table.has_values:
        from vitexp.sweeps.tables.figure import draw  # matplotlib

        draw(table, folder / "figure.png")
    own = [argument for argument in sys.argv[1:] if not argument.startswith(("show=", "trials="))]
    overrides = {row.name: row.overrides for row in planned.rows}
    page = write_page(table, folder, overrides=overrides, command=command_line("sweep", *own, *arguments))
    console.print(f"page      {typed(page)}", soft_wrap=True, highlight=False)
    console.print(f"tables    {typed(folder)}/table.md, .csv, .tex", soft_wrap=True, highlight=False)
