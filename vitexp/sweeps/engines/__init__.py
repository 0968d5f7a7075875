"""Engines run the trials of a sweep: where, how many at once, on which GPUs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeGuard

from vitexp.errors import ConfigError
from vitexp.sweeps.engines.trial import Event, Trial, record_interruption, status
from vitexp.system.lock import hold

OnEvent = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Engine(ABC):
    """What all engines are told; conf/engine/ explains it. Raises ConfigError for what cannot be."""

    retries: int
    timeout: float | None  # seconds an attempt
    gpus_per_trial: float | Literal["auto"]
    cpus_per_trial: int | Literal["auto"]

    def __post_init__(self) -> None:
        if not isinstance(self.retries, int) or self.retries < 0:
            raise ConfigError(f"engine.retries={self.retries} must be an integer of 0 or more.")
        if self.timeout is not None and not (_is_number(self.timeout) and self.timeout > 0):
            raise ConfigError(f"engine.timeout={self.timeout} must be null (no limit) or a number of seconds above 0.")
        gpus, cpus = self.gpus_per_trial, self.cpus_per_trial
        if gpus not in ("auto", 0) and not (_is_number(gpus) and (0 < gpus < 1 or _is_whole(gpus))):
            raise ConfigError(f"engine.gpus_per_trial={gpus} must be auto, a whole number, or a share below 1.")
        if cpus != "auto" and not _is_whole(cpus):
            raise ConfigError(f"engine.cpus_per_trial={cpus} must be auto or an integer of 1 or more.")

    @abstractmethod
    def run(self, trials: Sequence[Trial], *, on_event: OnEvent) -> None:
        """Run all `trials`; tells `on_event` Ready, then of every trial Started and Finished.

        A trial that fails is an event; what is raised (Ctrl-C, a ConfigError) ends all that runs, and the sweep.
        """


def run_trials(trials: Sequence[Trial], engine: Engine, *, folder: Path, on_event: OnEvent) -> list[Trial]:
    """Run those of `trials` that are not completed; the ones that are not completed afterwards.

    Meanwhile this process holds `folder`/sweep.lock; a second one on the same sweep is refused with Held, which names
    the first. Ctrl-C (KeyboardInterrupt) and SIGTERM (SystemExit 143) end all trials before they are raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder / "sweep.lock", wait=False), _sigterm_as_ctrl_c():
        left = [trial for trial in trials if status(trial) != "completed"]
        try:
            if left:
                engine.run(left, on_event=on_event)
        except BaseException:
            for trial in left:
                record_interruption(trial)
            raise
    return [trial for trial in left if status(trial) != "completed"]


def thread_limit(cpus: float) -> dict[str, str]:
    """The environment that keeps a trial to its CPUs; torch, MKL and OpenBLAS read it. What the user set stands."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, int(cpus))))}


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt inside, which Ray lets through as it is, and SystemExit(143) outside."""
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    came = False

    def interrupt(*_: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if came:
            sys.exit(128 + signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return _is_number(value) and value >= 1 and value == int(value)
