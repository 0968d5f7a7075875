"""The Optuna study of a search: what is searched, and the journal that the search and its trials share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from vitexp.errors import ConfigError
from vitexp.metrics import METRICS

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

_NAME: Final = "search"  # a journal holds one study
_BEGUN_WITH: Final = "begun_with"
_PRUNED: Final = "pruned"
_FOLDER: Final = "folder"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One file of conf/search/, which explains it. Raises ConfigError for what cannot be."""

    trials: int
    startup: int
    parallel: int | None
    metric: str
    direction: Literal["maximize", "minimize"]
    sampler: str
    seed: int
    prune: Mapping[str, int] | None
    space: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Settings:
        """From the configuration's node, as plain containers."""
        try:
            return cls(**node)
        except TypeError as error:
            raise ConfigError(f"search: {str(error).partition('() ')[2] or error}; see conf/search/.") from error

    def __post_init__(self) -> None:
        for key in ("trials", "startup", "parallel"):
            value = getattr(self, key)
            if not (_is_count(value) or (key == "parallel" and value is None)):
                raise ConfigError(f"search.{key}={value} must be an integer of 1 or more.")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"search.seed={self.seed} must be an integer of 0 or more.")
        if self.metric not in (metrics := [f"val/{name}" for name in METRICS]):
            raise ConfigError(
                f"search.metric={self.metric} must be measured on validation, for the test set is not for choosing: "
                f"{', '.join(metrics)}."
            )
        for key, choices in (("direction", ("maximize", "minimize")), ("sampler", ("tpe", "random"))):
            if getattr(self, key) not in choices:
                raise ConfigError(f"search.{key}={getattr(self, key)} must be {' or '.join(choices)}.")
        prune = self.prune
        if prune is not None and (set(prune) != {"startup", "warmup"} or not all(map(_is_count, prune.values()))):
            raise ConfigError(f"search.prune={prune} must be null, or startup and warmup, integers of 1 or more.")
        if not self.space:
            raise ConfigError(
                "search.space is empty; name the keys of train.py to search, as conf/search/recipe.yaml does."
            )

    @property
    def mode(self) -> str:
        """The direction, as checkpoint.mode says it."""
        return self.direction[:3]

    def distributions(self) -> dict[str, BaseDistribution]:
        """What is asked for. Raises ConfigError for a range that is none."""
        return {key: _distribution(key, spec) for key, spec in self.space.items()}

    def corners(self) -> list[dict[str, Any]]:
        """Points that together hold every bound and every choice of each key."""
        values = {key: spec.get("choices") or [spec["low"], spec["high"]] for key, spec in self.space.items()}
        most = max(map(len, values.values()))
        return [{key: each[min(index, len(each) - 1)] for key, each in values.items()} for index in range(most)]


def journal(folder: Path) -> Path:
    """The study's file in a sweep's folder."""
    return folder / "study.journal"


def open_study(folder: Path, settings: Settings, *, configuration: str) -> Study:
    """The study in `folder`, a new one where there is none.

    configuration: the hash of what all trials have in common.

    Raises ConfigError where the study there was begun with other settings: its values would not compare.
    """
    import optuna

    study = optuna.create_study(
        study_name=_NAME, storage=_storage(journal(folder)), direction=settings.direction, load_if_exists=True
    )
    begun_with = {
        "metric": settings.metric,
        "direction": settings.direction,
        "space": {key: dict(spec) for key, spec in settings.space.items()},
        "configuration": configuration,
    }
    before = study.user_attrs.get(_BEGUN_WITH, begun_with)
    if other := [key for key, value in begun_with.items() if before[key] != value]:
        raise ConfigError(
            f"the search in {folder} was begun with another {' and another '.join(other)}, and its trials would not "
            "compare; name=NAME begins a new one."
        )
    study.set_user_attr(_BEGUN_WITH, begun_with)
    return study


def ask(study: Study, settings: Settings) -> FrozenTrial:
    """One more trial, in state RUNNING."""
    import numpy as np

    number = len(study.get_trials(deepcopy=False))
    # drawn for every trial anew: a search that goes on must not draw again what it drew at first
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    study.sampler = _sampler(settings, seed)
    asked = study.ask(fixed_distributions=settings.distributions())
    return study.get_trials(deepcopy=False)[asked.number]


def tell(study: Study, number: int, reached: float | None, *, pruned: bool = False) -> None:
    """The outcome of a trial; None is a failed one. One that was pruned keeps its last report."""
    from optuna.trial import TrialState

    if reached is None:
        study.tell(number, state=TrialState.FAIL)
    elif pruned:
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, reached)


def value(trial: FrozenTrial) -> float:
    """What a completed trial was told, or a pruned one reported last."""
    assert trial.value is not None
    return trial.value


def note_folder(study: Study, trial: FrozenTrial, name: str) -> None:
    """Write down which run folder is the trial's."""
    study._storage.set_trial_user_attr(trial._trial_id, _FOLDER, name)


def noted_folder(trial: FrozenTrial) -> str | None:
    """The run folder of a trial; None where it could not be planned."""
    return trial.user_attrs.get(_FOLDER)


def was_pruned(study: Study, number: int) -> bool:
    """Whether a trial's training was stopped as it did worse than others."""
    return bool(study.get_trials(deepcopy=False)[number].user_attrs.get(_PRUNED, False))


class Reporter:
    """The study as a trial's process sees it: of this trial it writes, all others it compares to."""

    def __init__(self, study: Study, storage: JournalStorage, trial_id: int, pruner: BasePruner) -> None:
        self.study, self.storage, self.trial_id, self.pruner = study, storage, trial_id, pruner

    @classmethod
    def open(cls, path: Path, number: int, *, startup: int, warmup: int) -> Reporter | None:
        """None where the journal at `path` has no trial `number` that is under way."""
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
        storage.set_trial_user_attr(trial_id, _PRUNED, False)  # an attempt before may have been
        return cls(study, storage, trial_id, pruner)

    def report(self, value: float, *, epoch: int) -> bool:
        """Whether the trial, with `value` after `epoch`, is to be pruned."""
        self.storage.set_trial_intermediate_value(self.trial_id, epoch, value)
        return self.pruner.prune(self.study, self.storage.get_trial(self.trial_id))

    def mark_pruned(self) -> None:
        """Let the search know that the trial was."""
        self.storage.set_trial_user_attr(self.trial_id, _PRUNED, True)


def _storage(path: Path) -> JournalStorage:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def _sampler(settings: Settings, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    # constant_liar: trials of one round keep away from each other
    return TPESampler(n_startup_trials=settings.startup, constant_liar=True, seed=seed)


def _distribution(key: str, spec: Mapping[str, Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if set(spec) != {"choices"} and not {"low", "high"} <= set(spec) <= {"low", "high", "log", "step"}:
        raise ConfigError(
            f"search.space: {key} has {', '.join(spec)}; it needs choices, or low and high and perhaps log or step."
        )
    try:
        if "choices" in spec:
            return CategoricalDistribution(**spec)
        whole = isinstance(spec["low"], int) and isinstance(spec["high"], int)
        return IntDistribution(**spec) if whole else FloatDistribution(**spec)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"search.space: {key}: {str(error).rstrip('.')}.") from error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
