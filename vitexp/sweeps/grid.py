"""The trials of a sweep: the rows of an ablation, crossed with every key that has several values."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser

from vitexp.config.check import check, check_keys
from vitexp.config.components import options_of
from vitexp.config.compose import Composer, searchpath_override
from vitexp.config.overrides import last_of_each_key, quoted
from vitexp.errors import ConfigError, UserError
from vitexp.options import Doc, Field, Words
from vitexp.runs.inputs import check_files
from vitexp.runs.record import config_hash
from vitexp.sweeps.engines.trial import Trial, status

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
    folder: Path,
    *,
    ablation: Mapping[str, Any] | None,
    arguments: Sequence[str],
    searchpath: Sequence[str] = (),
    check_inputs: bool = False,
) -> Plan:
    """Return the plan of the sweep in `folder`.

    ablation: the chosen file of conf/ablation/; None for a grid. arguments: overrides for all trials; one with
    several values (a=1,2 or a=range(3)) makes one row per value, unless the key is seed. searchpath: URLs of folders
    with more config options, which the trials use too. check_inputs: whether the trials that are not
    completed run on this machine, so that their files can be checked.

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
    bases = [Row(name="", overrides=())] if ablation is None else ablation_rows(ablation)
    rows = []
    for base, chosen in product(bases, product(*grid)):
        words = [base.name, *(override for override in chosen if override.partition("=")[0] in several)]
        label = ", ".join(word for word in words if word)
        rows.append(Row(name=label or "as given", overrides=last_of_each_key([*base.overrides, *chosen])))
    trials, seen, composer = [], dict[Path, str](), Composer(searchpath)
    for seed, row in product(seeds, rows):
        overrides = (*row.overrides, seed)
        try:
            config = composer.compose(overrides)
            check(config)
            trial = _trial(row, overrides, config, folder=folder, searchpath=searchpath)
            if check_inputs and status(trial) != "completed":
                check_files(config)
        except UserError as error:
            raise ConfigError(f"{row.name!r}: {error}") from error
        if trial.folder in seen:  # a run would be compared with itself
            raise ConfigError(
                f"rows {seen[trial.folder]!r} and {row.name!r} are the same configuration (seed {trial.seed})."
            )
        seen[trial.folder] = row.name
        trials.append(trial)
    logger = config["logger"].get("wandb")
    wandb = None if logger is None else {key: logger[key] for key in ("project", "entity", "mode")}
    return Plan(rows=rows, trials=trials, wandb=wandb)


class _Ablation:
    """The keys of a file of conf/ablation/."""

    rows: Annotated[
        Annotated[list[dict[str, Any]], Field(min_length=1), Words("a list of rows, {name: NAME, set: [overrides]}")],
        Doc("variants"),
    ]
    base: Annotated[list[str] | None, Doc("overrides of all rows")] = None
    seeds: Annotated[list[int], Doc("seeds of every row")] = [0]  # noqa: RUF012
    cumulative: Annotated[bool, Doc("each row also has the overrides of all rows above it")] = False
    leave_one_out: Annotated[bool, Doc("all overrides together, then without those of each row")] = False


_OPTIONS = options_of(get_type_hints(_Ablation, include_extras=True), vars(_Ablation))


def ablation_rows(ablation: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a file of conf/ablation/. Raises ConfigError for an invalid file."""
    check_keys(ablation, _OPTIONS, prefix="ablation.")
    if unnamed := [row for row in ablation["rows"] if "name" not in row or set(row) - {"name", "set"}]:
        raise ConfigError(f"ablation.rows: {unnamed[0]} must have a name, and overrides under set.")
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


def _trial(
    row: Row, overrides: Sequence[str], config: dict[str, Any], *, folder: Path, searchpath: Sequence[str]
) -> Trial:
    run_id = config_hash(config)
    given = {"name": folder.name, "log_dir": str(folder.parent), "run_id": run_id}
    if (logger := config["logger"].get("wandb")) is not None and logger["group"] is None:
        given["logger.wandb.group"] = folder.name
    complete = (*overrides, *(f"{key}={quoted(value)}" for key, value in given.items()))
    words = (*last_of_each_key(("resume=auto", *complete)), *searchpath_override(searchpath))
    return Trial(
        row=row.name,
        seed=config["seed"],
        overrides=complete,
        folder=folder / run_id,
        command=(sys.executable, "-m", "vitexp", "train", *words),
    )
