"""The outcomes of the trials of a sweep, read from their result.json."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vitexp.runs.record import STATUSES as RECORDED
from vitexp.runs.record import TRIAL_LOCK, DamagedRecord, read_result, warn_skipped
from vitexp.sweeps.engines.trial import Trial
from vitexp.system.lock import is_held

# As in result.json; "missing" is a trial without a record, for example because it has not started.
STATUSES: Final = (*RECORDED, "missing")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a trial. status: one of STATUSES. result: the record, or None if it is missing."""

    row: str
    seed: int
    folder: Path
    status: str
    result: dict[str, Any] | None
    fold: int | None = None  # as in Trial

    def get(self, *keys: str) -> Any:
        """Return the entry of the record at nested `keys`; None if there is none."""
        node: Any = self.result
        for key in keys:
            node = node.get(key) if isinstance(node, dict) else None
        return node

    def number(self, *keys: str) -> float | None:
        """Return the finite number at nested `keys`; None if there is none."""
        value = self.get(*keys)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return value if is_number else None


def read(trials: Iterable[Trial]) -> list[Outcome]:
    """Return the outcome of every trial, in order.

    A trial without a record counts as missing; so does one whose record cannot be read, with a warning.
    """
    return [_read(trial) for trial in trials]


def _read(trial: Trial) -> Outcome:
    result = None
    try:
        result = read_result(trial.folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, DamagedRecord) as error:
        warn_skipped(f"{error} It counts as missing.")
    status = result["status"] if result else "missing"
    lock = trial.folder / TRIAL_LOCK
    if status == "running" and lock.exists() and not is_held(lock):
        status = "interrupted"  # killed together with its sweep, which could not record it
    return Outcome(row=trial.row, seed=trial.seed, fold=trial.fold, folder=trial.folder, status=status, result=result)
