"""The trials of a sweep: the rows of an ablation, crossed with every key that has several values."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from vitexp.config.check import check
from vitexp.config.compose import compose, searchpath_override
from vitexp.config.overrides import last_of_each_key, quoted
from vitexp.errors import ConfigError, UserError
from vitexp.runs.record import config_hash
from vitexp.sweeps.engines.trial import Trial

SEED = "seed"
GIVEN_BY_THE_SWEEP = ("name", "log_dir", "run_id")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: the overrides that its trials have in common."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rows of a sweep, and its trials seed by seed, so that early tables have every row."""

    rows: list[Row]
    trials: list[Trial]
    wandb: dict[str, Any] | None  # project, entity and mode of the trials; None if they do not log to W&B


def plan(
    *,
    name: str,
    log_dir: Path,
    ablation: Mapping[str, Any] | None,
    arguments: Sequence[str],
    searchpath: Sequence[str] = (),
) -> Plan:
    """Return the plan of the sweep `name`.

    ablation: the chosen file of conf/ablation/; None for a grid. arguments: overrides for all trials; one with
    several values (a=1,2 or a=range(3)) makes one row per value, except seeds. searchpath: URLs of folders with further
    options, for the trials too.

    Raises ConfigError if the ablation or the configuration of any trial cannot work; nothing has run by then.
    """
    swept = [_values(argument) for argument in arguments]
    for key, _ in swept:
        if key in GIVEN_BY_THE_SWEEP:
            raise ConfigError(f"{key} cannot be set for trials: the sweep has its own name and log_dir.")
    seeds = next((values for key, values in reversed(swept) if key == SEED), None)
    if seeds is None:
        seeds = [f"{SEED}={seed}" for seed in (ablation or {}).get("seeds", [0])]
    grid = [values for key, values in swept if key != SEED]
    several = {values[0].partition("=")[0] for values in grid if len(values) > 1}
    rows = []
    for base, chosen in product(ablation_rows(ablation) if ablation else [Row(name="", overrides=())], product(*grid)):
        words = [base.name, *(override for override in chosen if override.partition("=")[0] in several)]
        label = ", ".join(word for word in words if word)
        rows.append(Row(name=label or "as given", overrides=last_of_each_key([*base.overrides, *chosen])))
    requested = [(row, (*row.overrides, seed)) for seed in seeds for row in rows]
    configs = [_config(row, overrides, searchpath) for row, overrides in requested]
    trials = [
        _trial(row, overrides, config, name=name, log_dir=log_dir, searchpath=searchpath)
        for (row, overrides), config in zip(requested, configs, strict=True)
    ]
    logger = configs[0].logger
    _refuse_twins(trials)
    wandb = {key: logger.wandb[key] for key in ("project", "entity", "mode")} if "wandb" in logger else None
    return Plan(rows=rows, trials=trials, wandb=wandb)


def ablation_rows(ablation: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a file of conf/ablation/."""
    base = tuple(ablation.get("base") or ())
    steps = [Row(name=str(row["name"]), overrides=tuple(row.get("set") or ())) for row in ablation["rows"]]
    if ablation.get("cumulative"):
        summed = [sum((step.overrides for step in steps[: end + 1]), base) for end in range(len(steps))]
        return [Row(name=step.name, overrides=each) for step, each in zip(steps, summed, strict=True)]
    if ablation.get("leave_one_out"):
        full = Row(name="full", overrides=sum((step.overrides for step in steps), base))
        without = [
            Row(name=f"without {left.name}", overrides=sum((s.overrides for s in steps if s is not left), base))
            for left in steps
        ]
        return [full, *without]
    return [Row(name=step.name, overrides=base + step.overrides) for step in steps]


def _values(argument: str) -> tuple[str, list[str]]:
    """Return the key of an override, and one override for each of its values."""
    [override] = OverridesParser.create().parse_overrides([argument])
    key = override.key_or_group
    if not override.is_sweep_override():
        return key, [argument]
    return key, [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _config(row: Row, overrides: Sequence[str], searchpath: Sequence[str]) -> DictConfig:
    """Return the checked configuration of a trial."""
    try:
        config = compose(overrides, searchpath=searchpath)
        check(config)
    except UserError as error:
        raise ConfigError(f"{row.name!r}: {error}") from error
    return config


def _trial(
    row: Row, overrides: Sequence[str], config: DictConfig, *, name: str, log_dir: Path, searchpath: Sequence[str]
) -> Trial:
    run_id = config_hash(config)
    given = {"name": name, "log_dir": str(log_dir), "run_id": run_id}
    if "wandb" in config.logger and config.logger.wandb.group is None:
        given["logger.wandb.group"] = name
    complete = (*overrides, *(f"{key}={quoted(value)}" for key, value in given.items()))
    return Trial(
        row=row.name,
        seed=config.seed,
        overrides=complete,
        folder=log_dir / name / run_id,
        command=(
            *(sys.executable, "-m", "vitexp", "train"),
            *last_of_each_key(("resume=auto", *complete)),
            *searchpath_override(searchpath),
        ),
    )


def _refuse_twins(trials: Sequence[Trial]) -> None:
    """Raise ConfigError for two rows with the same configuration: a run would be compared with itself."""
    seen: dict[Path, Trial] = {}
    for trial in trials:
        if (other := seen.setdefault(trial.folder, trial)) is not trial:
            raise ConfigError(f"rows {other.row!r} and {trial.row!r} are the same configuration (seed {trial.seed}).")
