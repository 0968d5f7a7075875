"""The Optuna study of a search: what is searched, and the journal that the search and its trials share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_type_hints

from vitexp.config.check import check_keys
from vitexp.config.components import options_of
from vitexp.config.validate import as_typed
from vitexp.errors import ConfigError
from vitexp.options import Doc, Field, Words
from vitexp.sweeps.grid import in_place

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

_NAME: Final = "search"  # a journal holds one study
# User attributes of the study and of its trials, in journals of earlier versions too.
_START: Final = "begun_with"
PRUNED: Final = "pruned"
FOLDER: Final = "folder"

Count = Annotated[int, Field(ge=1, le=10**6)]
Prune = Annotated[
    dict[Literal["startup", "warmup"], Count], Field(min_length=2), Words("startup and warmup, integers of 1 or more")
]
Space = Annotated[
    dict[str, Any], Field(min_length=1), Words("a mapping from keys of the trials to ranges, {low, high} or {choices}")
]
Number = Annotated[int | float, Words("a number")]
Metric = Annotated[
    str,
    Field(pattern=r"^val/\w+$"),
    Words("a metric of the validation set, such as val/accuracy; the test set must not choose"),
]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of a search, `search.*`: a file of conf/search/."""

    trials: Annotated[Count, Doc("in total, pruned and failed ones included; a larger number continues the search")]
    startup: Annotated[Count, Doc("random trials before the sampler learns from results")]
    parallel: Annotated[Count | None, Doc("trials per round; null: as many as the engine runs at a time")]
    metric: Annotated[Metric, Doc("validation metric to optimize")]
    direction: Annotated[Literal["maximize", "minimize"], Doc("which values are better")]
    sampler: Annotated[Literal["tpe", "random"], Doc("tpe: tree-structured Parzen estimator (Bergstra et al. 2011)")]
    seed: Annotated[Annotated[int, Field(ge=0, le=2**32 - 1)], Doc("sampler seed; seed=... sets that of the trials")]
    prune: Annotated[
        Prune | None,
        Doc("completed trials before pruning starts, and epochs of a trial before it can be pruned; null: never"),
    ]
    space: Annotated[Space, Doc("ranges: {low, high} with optional log: true or step, or {choices}")]

    @classmethod
    def of(cls, node: Mapping[str, Any], *, file: str = "the search") -> Settings:
        """Read the node `search` of a configuration. Raises ConfigError, which names `file`, for the first mistake."""
        with in_place(file):
            check_keys(node, SETTINGS, prefix="search.")
        for key, spec in node["space"].items():
            with in_place(f"{file}, space, {key}"):
                if not isinstance(key, str):
                    raise ConfigError("the name of a key must be a text.")
                if not isinstance(spec, Mapping):
                    raise ConfigError(f"{as_typed(spec)} must be a range, {{low, high}} or {{choices}}.")
                check_keys(spec, RANGE)
                if problem := _problem(spec):
                    raise ConfigError(problem)
        return cls(**node)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return `space` as Optuna distributions."""
        return {key: _distribution(spec) for key, spec in self.space.items()}

    def corners(self) -> list[dict[str, Any]]:
        """Return points that together contain every bound and every choice of each key."""
        values = {key: spec.get("choices") or [spec["low"], spec["high"]] for key, spec in self.space.items()}
        most = max(map(len, values.values()))
        return [{key: each[min(index, len(each) - 1)] for key, each in values.items()} for index in range(most)]


class _Range:
    """The keys of a range of `space`: low and high, or choices."""

    low: Annotated[Number | None, Doc("lowest value; integer bounds give integers")] = None
    high: Annotated[Number | None, Doc("highest value")] = None
    log: Annotated[bool, Doc("draw the logarithm uniformly")] = False
    step: Annotated[
        Annotated[int | float, Field(gt=0), Words("a number above 0")] | None, Doc("distance between values; null: any")
    ] = None
    choices: Annotated[
        Annotated[list[str | int | float | bool | None], Field(min_length=1)] | None,
        Words("a list of one or more values; quote a value that is a list, such as '[24,32]'"),
        Doc("the values to choose from"),
    ] = None


SETTINGS = options_of(get_type_hints(Settings, include_extras=True), {})
RANGE = options_of(get_type_hints(_Range, include_extras=True), vars(_Range))


def _problem(spec: Mapping[str, Any]) -> str:
    """Return a sentence if the keys of a range do not fit together; "" if they do."""
    choices, low, high, step = (spec.get(key) for key in ("choices", "low", "high", "step"))
    if choices is not None:
        if len(spec) > 1:
            return f"choices and {', '.join(key for key in spec if key != 'choices')} exclude each other."
        return (
            ""
            if len({json.dumps(each) for each in choices}) == len(choices)
            else "a choice is given twice; remove one."
        )
    if low is None or high is None:
        return f"{'low' if low is None else 'high'} is missing; a range is {{low, high}} or {{choices}}."
    if low >= high:
        return f"low={low} must be below high={high}."
    if spec.get("log"):
        if low <= 0:
            return f"low={low} must be above 0 because log=true."
        return "" if step is None else f"step={step} and log=true exclude each other; remove one."
    if step is None:
        return ""
    steps = (high - low) / step
    if abs(steps - round(steps)) > 1e-6 or steps < 1:
        nearest = low + max(1, round(steps)) * step
        return f"step={step} does not lead from low={low} to high={high}; use high={nearest:g}."
    return ""


def journal(folder: Path) -> Path:
    """Return the file of the study in a sweep's folder."""
    return folder / "study.journal"


def open_study(folder: Path, settings: Settings, *, configuration: str) -> Study:
    """Open the study in `folder`; create it if there is none.

    configuration: hash of what all trials have in common. Raises ConfigError if the study was started with other
    settings, because its values would not be comparable.
    """
    import optuna

    storage = _storage(journal(folder))
    if _NAME in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=_NAME, storage=storage)
    else:
        study = optuna.create_study(study_name=_NAME, storage=storage, direction=settings.direction)
    start = {
        "metric": settings.metric,
        "direction": settings.direction,
        "space": {key: dict(spec) for key, spec in settings.space.items()},
        "configuration": configuration,
    }
    before = study.user_attrs.get(_START, start)
    if other := [key for key, value in start.items() if before[key] != value]:
        raise ConfigError(
            f"the search in {folder} was started with another {' and another '.join(other)}, so its trials are not "
            "comparable; name=NAME starts a new search."
        )
    if _START not in study.user_attrs:
        study.set_user_attr(_START, start)
    return study


def is_started(folder: Path, *, configuration: str) -> bool:
    """Return whether there is a study in `folder` whose trials have this configuration in common."""
    import optuna

    if not journal(folder).exists():
        return False
    storage = _storage(journal(folder))
    if _NAME not in optuna.get_all_study_names(storage):
        return False
    start = optuna.load_study(study_name=_NAME, storage=storage).user_attrs.get(_START, {})
    return bool(start.get("configuration") == configuration)


def ask(study: Study, settings: Settings) -> FrozenTrial:
    """Return a new trial, in state RUNNING, at the point that the sampler chooses."""
    import numpy as np

    number = len(study.get_trials(deepcopy=False))
    # A new seed per trial: a resumed search must not repeat the draws of its start.
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    study.sampler = _sampler(settings, seed)
    trial = study.ask(fixed_distributions=settings.distributions())
    return study.get_trials(deepcopy=False)[trial.number]


def value(trial: FrozenTrial) -> float:
    """Return the value of a completed trial, or the last one that a pruned trial reported."""
    assert trial.value is not None
    return trial.value


class Reporter:
    """The study as seen by a trial's process: it writes this trial and compares it with all others."""

    def __init__(self, study: Study, storage: JournalStorage, trial_id: int, pruner: BasePruner) -> None:
        self.study, self.storage, self.trial_id, self.pruner = study, storage, trial_id, pruner

    @classmethod
    def open(cls, path: Path, number: int, *, startup: int, warmup: int) -> Reporter | None:
        """Return the reporter of trial `number`; None if the journal at `path` has no such unfinished trial."""
        import optuna

        if not path.exists():
            return None
        storage = _storage(path)
        study = optuna.load_study(study_name=_NAME, storage=storage)
        trials = study.get_trials(deepcopy=False)
        if number >= len(trials) or trials[number].state.is_finished():
            return None
        pruner = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
        trial_id = trials[number]._trial_id
        storage.set_trial_user_attr(trial_id, PRUNED, False)  # an earlier attempt may have been pruned
        return cls(study, storage, trial_id, pruner)

    def report(self, value: float, *, epoch: int) -> bool:
        """Record `value` after `epoch`; return whether the trial should be pruned."""
        self.storage.set_trial_intermediate_value(self.trial_id, epoch, value)
        return self.pruner.prune(self.study, self.storage.get_trial(self.trial_id))

    def mark_pruned(self) -> None:
        """Record that the trial was pruned."""
        self.storage.set_trial_user_attr(self.trial_id, PRUNED, True)


def _storage(path: Path) -> JournalStorage:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def _sampler(settings: Settings, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    # constant_liar keeps the trials of one round apart.
    return TPESampler(n_startup_trials=settings.startup, constant_liar=True, seed=seed)


def _distribution(spec: Mapping[str, Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    given = {key: value for key, value in spec.items() if value is not None}
    if "choices" in given:
        return CategoricalDistribution(**given)
    is_integer = all(isinstance(given.get(key, 1), int) for key in ("low", "high", "step"))
    return IntDistribution(**given) if is_integer else FloatDistribution(**given)
