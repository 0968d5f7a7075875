"""One sweep: plan its trials, run those that are not completed, show the table."""

from __future__ import annotations

import hashlib
import re
import shlex
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

from vitexp.config.compose import user_searchpath
from vitexp.config.overrides import quoted
from vitexp.errors import ConfigError, UserError
from vitexp.sweeps.engines import Engine, run_trials
from vitexp.sweeps.grid import Plan, Row, plan
from vitexp.sweeps.search.search import search
from vitexp.sweeps.tables import figure, formats
from vitexp.sweeps.tables.page import write_page
from vitexp.sweeps.tables.results import Cell, read
from vitexp.sweeps.tables.table import Table, build_table
from vitexp.sweeps.tables.wandb_table import log_to_wandb
from vitexp.sweeps.view import View
from vitexp.system.disk import typed, write_atomically

OWN_KEYS = ("name", "log_dir", "metric", "baseline", "show", "ablation", "search", "engine", "hydra")


class TrialsFailed(UserError):
    """The sweep has run, and some of its trials have failed."""

    exit_code = 1


def own_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line of sweep.py as Hydra composes conf/sweep.yaml: what train.py is to get becomes one key."""
    own: list[str] = []
    for_trials: list[str] = []
    for argument in arguments:
        key = re.split(r"[.=@]", argument.lstrip("+~"), maxsplit=1)[0]
        own_one = argument.startswith("-") or "=" not in argument or key in OWN_KEYS
        (own if own_one else for_trials).append(argument)
    return [*own, f"trials=[{','.join(map(quoted, for_trials))}]"] if for_trials else own


def sweep(config: DictConfig) -> None:
    """Run the sweep that `config`, composed from conf/sweep.yaml, describes; or only show its table.

    Raises ConfigError where a trial cannot work, before any has begun, and TrialsFailed when some did at the end; a
    search raises NothingFound when all did. Ctrl-C ends the process with code 130.
    """
    arguments, choices = list(config.trials), HydraConfig.get().runtime.choices
    chosen, searched = choices["ablation"], choices["search"]
    if chosen and searched:
        raise ConfigError(f"ablation={chosen} and search={searched} are two sweeps; run one after the other.")
    if not chosen and not searched and not arguments:
        raise ConfigError(
            "nothing to sweep: say ablation=NAME or search=NAME, or give a key several values (optim.lr=1e-4,3e-4)."
        )
    name = config.name or chosen or searched or f"grid-{hashlib.sha256(' '.join(arguments).encode()).hexdigest()[:6]}"
    engine, console = _engine(config), Console()
    log_dir, searchpath = Path(config.log_dir).expanduser().resolve(), user_searchpath()
    GlobalHydra.instance().clear()  # the trials' configurations are composed next
    try:
        if searched:
            node: Any = OmegaConf.to_container(config.search, resolve=True)
            search(
                node,
                name=name,
                log_dir=log_dir,
                arguments=arguments,
                engine=engine,
                show=config.show,
                console=console,
                searchpath=searchpath,
            )
            return
        # unresolved: its overrides may hold ${...}, which belong to the trials' configuration
        ablation: Any = OmegaConf.to_container(config.ablation) if chosen else None
        planned = plan(name=name, log_dir=log_dir, ablation=ablation, arguments=arguments, searchpath=searchpath)
        table = _TableOf(planned, name=name, metric=config.metric, baseline=config.baseline)
        _run_rows(planned, table, engine, folder=log_dir / name, show=config.show, console=console, arguments=arguments)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        sys.exit(130)


def _run_rows(
    planned: Plan,
    table: _TableOf,
    engine: Engine,
    *,
    folder: Path,
    show: bool,
    console: Console,
    arguments: Sequence[str],
) -> None:
    """Run the trials of an ablation or a grid, unless `show`, and show their table, also when stopped."""
    table()  # refuses a wrong metric or baseline before anything runs
    left = []
    try:
        if not show:
            with View(table.name, planned.trials, console=console) as view:
                left = run_trials(planned.trials, engine, folder=folder, on_event=view)
    finally:
        _show(table(), planned.rows, folder=folder, console=console, arguments=arguments)
    if not show and planned.wandb is not None:
        console.print(f"wandb     {log_to_wandb(table(), folder, group=table.name, **planned.wandb)}", soft_wrap=True)
    if left:
        raise TrialsFailed(
            f"{len(left)} of {len(planned.trials)} trials failed: the page names them, the same command tries again."
        )


def _engine(config: DictConfig) -> Engine:
    try:
        engine = instantiate(config.engine)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise
    assert isinstance(engine, Engine)
    return engine


class _TableOf:
    """The table of the sweep as it stands now."""

    def __init__(self, planned: Plan, *, name: str, metric: str, baseline: str | None) -> None:
        # row by row: the order of the table, whereas trials run seed by seed
        order = {row.name: number for number, row in enumerate(planned.rows)}
        self.cells = [
            Cell(row=trial.row, seed=trial.seed, folder=trial.folder)
            for trial in sorted(planned.trials, key=lambda trial: order[trial.row])
        ]
        self.name, self.metric, self.baseline = name, metric, baseline

    def __call__(self) -> Table:
        return build_table(read(self.cells), title=self.name, metric=self.metric, baseline=self.baseline)


def _show(table: Table, rows: Sequence[Row], *, folder: Path, console: Console, arguments: Sequence[str]) -> None:
    """Print the table, and write it in every format beside the trials. arguments: those of train.py, as typed."""
    console.print(formats.to_rich(table, compact=console.width < 130))
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, render in (("md", formats.to_markdown), ("csv", formats.to_csv), ("tex", formats.to_latex)):
        write_atomically(folder / f"table.{suffix}", render(table))
    if any(row.summary(table.compared) for row in table.rows):
        figure.draw(table, folder / "figure.png")
    own = [argument for argument in sys.argv[1:] if not argument.startswith(("show=", "trials="))]
    page = write_page(
        table,
        folder,
        overrides={row.name: row.overrides for row in rows},
        command=shlex.join(["python", "sweep.py", *own, *arguments]),
    )
    console.print(f"page      {typed(page)}", soft_wrap=True, highlight=False)
    console.print(f"tables    {typed(folder)}/table.md, .csv, .tex", soft_wrap=True, highlight=False)
