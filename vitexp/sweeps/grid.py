"""The trials of a sweep: the rows of an ablation, crossed with every key that has several values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from vitexp.config.check import check, check_keys
from vitexp.config.components import options_of
from vitexp.config.compose import Composer, explain, searchpath_override
from vitexp.config.overrides import last_of_each_key, quoted
from vitexp.config.schema import Seed
from vitexp.config.validate import as_typed
from vitexp.errors import ConfigError, UserError
from vitexp.options import Doc, Field, Words
from vitexp.runs.inputs import check_files
from vitexp.runs.record import config_hash
from vitexp.sweeps.engines.trial import Trial, status

SEED = "seed"
_ONLY_ROW = "as given"
GIVEN_BY_THE_SWEEP = ("name", "log_dir", "run_id", "resume")
_FOLDS = ("data.folds", "data.fold")

Name = Annotated[
    str,
    Field(pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,98}[^\s\x00-\x1f\x7f])?$"),
    Words("a text of 1 to 100 characters; quote a number and words such as no"),
]
Overrides = Annotated[list[str], Words("a list of overrides, such as [optim.lr=0.01, model.depth=4]")]


class _Row:
    """The keys of a row."""

    name: Annotated[Name, Doc("label of the row in the tables")]
    set: Annotated[Overrides | None, Doc("overrides of the row")] = None


class _Ablation:
    """The keys of a file of conf/ablation/."""

    rows: Annotated[
        Annotated[list[Any], Field(min_length=1)],
        Words("a list of rows, each {name: NAME, set: [OVERRIDE, ...]}"),
        Doc("the rows of the table"),
    ]
    base: Annotated[Overrides | None, Doc("overrides of all rows; those of a row replace them")] = None
    seeds: Annotated[
        Annotated[list[Seed], Field(min_length=1)],
        Words("a list of integers of 0 or more, such as [0, 1, 2]"),
        Doc("seeds of every row"),
    ] = [0]  # noqa: RUF012
    cumulative: Annotated[bool, Doc("each row also has the overrides of all rows above it")] = False
    leave_one_out: Annotated[bool, Doc("all overrides together, then without those of each row")] = False


ABLATION = options_of(get_type_hints(_Ablation, include_extras=True), vars(_Ablation))
ROW = options_of(get_type_hints(_Row, include_extras=True), vars(_Row))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: the overrides that its trials have in common."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rows of a sweep, and its trials seed by seed and fold by fold, so that early tables have every row."""

    folder: Path
    rows: list[Row]
    trials: list[Trial]
    wandb: dict[str, Any] | None  # project, entity and mode of the trials; None if they do not log to W&B
    is_cumulative: bool  # each row changes the one above it
    folds: int | None = None  # each row and seed has a trial per fold of the training images


def plan(
    folder: Path | Callable[[Collection[str]], Path],
    *,
    ablation: Mapping[str, Any] | None,
    arguments: Sequence[str],
    folds: int | None = None,
    searchpath: Sequence[str] = (),
    file: str = "",
    earlier: Path | None = None,
    check_inputs: bool = False,
) -> Plan:
    """Return the plan of the sweep in `folder`.

    folder: or a function that returns it, given the names of the trials' folders. ablation: the content of `file`, a
    file of conf/ablation/; None for a grid. arguments: overrides for all trials; one with several values (a=1,2 or
    a=range(3)) makes one row per value, unless the key is seed. folds: run each combination and seed once for each of
    this many folds of the training images; None: once. searchpath: URLs of folders with more config options,
    which the trials use too. earlier: another folder, in which trials that are not in `folder` may have started.
    check_inputs: whether the trials that are not completed run on this machine, so that their files can be checked.

    Raises ConfigError if the ablation or the configuration of any trial cannot work; nothing has run by then.
    """
    swept = [values_of(argument) for argument in arguments]
    for key, _ in swept:
        if key in GIVEN_BY_THE_SWEEP:
            raise ConfigError(f"{key} cannot be set for trials; the sweep sets it.")
        if folds is not None and key in _FOLDS:
            raise ConfigError(f"{key} cannot be set for trials; folds={folds} sets it.")
    bases = [Row(name="", overrides=())] if ablation is None else ablation_rows(ablation, file=file or "the ablation")
    for base in bases if folds is not None else ():
        if given := next((key for key, _ in map(values_of, base.overrides) if key in _FOLDS), None):
            raise ConfigError(
                f"{file or 'the ablation'}, row {base.name!r}: {given} cannot be set; folds={folds} sets it."
            )
    seeds = next((values for key, values in reversed(swept) if key == SEED), None)
    if seeds is None:
        seeds = [f"{SEED}={seed}" for seed in (ablation or {}).get("seeds", [0])]
    grid = [values for key, values in swept if key != SEED]
    several = {values[0].partition("=")[0] for values in grid if len(values) > 1}
    fixed = [values[0] for values in grid if len(values) == 1]
    rows = []
    for base, chosen in product(bases, product(*grid)):
        words = [base.name, *(override for override in chosen if override.partition("=")[0] in several)]
        label = ", ".join(word for word in words if word)
        rows.append(Row(name=label or _ONLY_ROW, overrides=last_of_each_key([*base.overrides, *chosen])))
    repetitions = [
        (seed,) if folds is None else (seed, f"data.folds={folds}", f"data.fold={fold}")
        for seed in seeds
        for fold in range(folds or 1)
    ]
    points, seen, composer = [], dict[str, str](), Composer(searchpath)
    where = f"{file}, " if file else ""
    for repetition, row in product(repetitions, rows):
        overrides = (*row.overrides, *repetition)
        try:
            config = _checked_config(composer, overrides)
        except ConfigError as error:
            if str(error) == _complaint(composer, (*fixed, *repetition)):  # whatever the row
                raise
            label = f"{where}row {row.name!r}: " if file or len(rows) > 1 else ""
            raise ConfigError(f"{label}{error}") from error
        run_id = config_hash(config)
        if run_id in seen:  # a run would be compared with itself
            raise ConfigError(
                f"{where}rows {seen[run_id]!r} and {row.name!r} are the same configuration (seed {config['seed']})."
            )
        seen[run_id] = row.name
        points.append((row, overrides, config, run_id))
    folder = folder if isinstance(folder, Path) else folder(seen)
    trials = [
        _trial(
            row,
            overrides,
            config,
            fold=None if folds is None else config["data"]["fold"],
            folder=_place(run_id, folder, earlier),
            group=folder.name,
            searchpath=searchpath,
        )
        for row, overrides, config, run_id in points
    ]
    usable: list[Any] = []  # data sets: to list all their files for every trial would take long
    for trial, (row, _, config, _) in zip(trials, points, strict=True) if check_inputs else ():
        if status(trial) != "completed":
            source = (config["data"]["source"], config["data"]["folds"])
            try:
                check_files({**config, "log_dir": str(folder.parent)}, check_data=source not in usable)
                usable.append(source)
            except UserError as error:
                raise ConfigError(f"{where}row {row.name!r}: {error}") from error
    logger = config["logger"].get("wandb")
    wandb = None if logger is None else {key: logger[key] for key in ("project", "entity", "mode")}
    is_cumulative = bool(ablation and ablation.get("cumulative") and not several)
    return Plan(folder=folder, rows=rows, trials=trials, wandb=wandb, is_cumulative=is_cumulative, folds=folds)


def _checked_config(composer: Composer, overrides: Sequence[str]) -> dict[str, Any]:
    """Return a configuration. Raises ConfigError if it cannot work."""
    try:
        config = composer.compose(overrides)
        check(config)
    except UserError as error:
        raise ConfigError(str(error)) from error
    return config


def _complaint(composer: Composer, overrides: Sequence[str]) -> str | None:
    """Return what is wrong with a configuration; None if nothing is."""
    try:
        _checked_config(composer, overrides)
    except ConfigError as error:
        return str(error)
    return None


def _place(run_id: str, folder: Path, earlier: Path | None) -> Path:
    """Return the folder of a trial: in `folder`, unless it started in `earlier`."""
    if earlier is not None and (earlier / run_id).is_dir() and not (folder / run_id).is_dir():
        return earlier / run_id
    return folder / run_id


def ablation_rows(ablation: Mapping[str, Any], *, file: str = "the ablation") -> list[Row]:
    """Return the rows of a file of conf/ablation/. Raises ConfigError, which names `file`, for an invalid one."""
    with in_place(file):
        check_keys(ablation, ABLATION, prefix="ablation.")
        if ablation.get("cumulative") and ablation.get("leave_one_out"):
            raise ConfigError("cumulative and leave_one_out exclude each other; remove one.")
        if len(set(seeds := ablation.get("seeds", [0]))) < len(seeds):
            raise ConfigError(f"seeds={seeds} contains a seed twice; list every seed once.")
        base = _checked(ablation.get("base") or (), where="base")
    steps: list[Row] = []
    for number, row in enumerate(ablation["rows"], 1):
        with in_place(file):
            if not isinstance(row, Mapping):
                raise ConfigError(
                    f"row {number}, {as_typed(row)}, must be a mapping, {{name: NAME, set: [OVERRIDE, ...]}}."
                )
        name = row.get("name")
        with in_place(f"{file}, row {repr(as_typed(name)) if isinstance(name, str) else number}"):
            check_keys(row, ROW)
            if any(name == step.name for step in steps):
                raise ConfigError("there is a row with this name above; give each row its own name.")
            steps.append(Row(name=str(name), overrides=_checked(row.get("set") or (), where="set")))
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


@contextmanager
def in_place(where: str) -> Iterator[None]:
    """Put `where` in front of the sentence of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _checked(overrides: Sequence[str], *, where: str) -> tuple[str, ...]:
    """Return the overrides of a row. Raises ConfigError for one that cannot be read, or that would be ignored."""
    seen = set[str]()
    for override in overrides:
        key, values = values_of(override)
        if key == SEED:
            raise ConfigError(f"seed cannot be one of the overrides ({where}); list the seeds of all rows in seeds.")
        if key in GIVEN_BY_THE_SWEEP:
            raise ConfigError(f"{key} cannot be one of the overrides ({where}); the sweep sets it.")
        if len(values) > 1:
            raise ConfigError(f"{override} has several values; write a row for each, or use the command line.")
        if key in seen:
            raise ConfigError(f"{key} is given twice in {where}; remove one.")
        seen.add(key)
    return tuple(overrides)


def values_of(argument: str) -> tuple[str, list[str]]:
    """Return the key of an override, and one override for each of its values.

    Raises ConfigError if it cannot be read.
    """
    try:
        [override] = OverridesParser.create().parse_overrides([argument])
    except HydraException as error:
        raise ConfigError(explain(error, [])) from error
    key = override.key_or_group
    if not override.is_sweep_override():
        return key, [argument]
    return key, [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _trial(
    row: Row,
    overrides: Sequence[str],
    config: dict[str, Any],
    *,
    fold: int | None,
    folder: Path,
    group: str,
    searchpath: Sequence[str],
) -> Trial:
    given = {"name": folder.parent.name, "log_dir": str(folder.parents[1]), "run_id": folder.name}
    logger = config["logger"].get("wandb") or {}
    if logger.get("group", "") is None:
        given["logger.wandb.group"] = group
    if logger.get("row", "") is None:  # absent from a file of one's own
        given["logger.wandb.row"] = group if row.name == _ONLY_ROW else row.name.replace("${", "\\${")
    complete = (*overrides, *(f"{key}={quoted(value)}" for key, value in given.items()))
    words = (*last_of_each_key(("resume=auto", *complete)), *searchpath_override(searchpath))
    return Trial(
        row=row.name,
        seed=config["seed"],
        fold=fold,
        overrides=complete,
        folder=folder,
        command=(sys.executable, "-m", "vitexp", "train", *words),
    )
