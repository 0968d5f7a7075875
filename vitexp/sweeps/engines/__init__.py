"""Engines decide where the trials of a sweep run, how many at a time, and on which GPUs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

from vitexp.options import Doc, Field
from vitexp.sweeps.engines.trial import Event, Trial, record_interruption, status

OnEvent = Callable[[Event], None]
Gpus = Annotated[int, Field(ge=0, le=1024)] | Annotated[float, Field(gt=0, lt=1)] | Literal["auto"]
Cpus = Annotated[int, Field(ge=1, le=4096)] | Literal["auto"]


class Engine(ABC):
    """Base class of engines, with the options that all of them have."""

    runs_here = True  # on this machine, so that the files of a trial can be checked before it starts

    def __init__(
        self,
        *,
        retries: Annotated[int, Field(ge=0, le=1000), Doc("more attempts after a failure")] = 1,
        timeout: Annotated[
            Annotated[float, Field(gt=0, le=1e9)] | None, Doc("seconds per attempt; null: no limit")
        ] = None,
        gpus_per_trial: Annotated[
            Gpus, Doc("GPUs, or a fraction of one; auto: 1 if there is a GPU, otherwise 0")
        ] = "auto",
        cpus_per_trial: Annotated[Cpus, Doc("cores and threads; auto: an equal share for each concurrent trial")] = (
            "auto"
        ),
    ) -> None:
        self.retries, self.timeout = retries, timeout
        self.gpus_per_trial, self.cpus_per_trial = gpus_per_trial, cpus_per_trial

    @abstractmethod
    def run(self, trials: Sequence[Trial], *, on_event: OnEvent) -> None:
        """Run all `trials`; call `on_event` with Ready, then with Started and Finished of every trial.

        A failed trial is reported as an event, not raised. An exception (Ctrl-C, a ConfigError) ends all running trials
        and the sweep.
        """


def run_trials(trials: Sequence[Trial], engine: Engine, *, on_event: OnEvent) -> list[Trial]:
    """Run the trials that are not completed; return those that are still not completed afterwards.

    The caller holds the lock of the sweep.
    Ctrl-C (KeyboardInterrupt), SIGTERM (SystemExit 143) and SIGHUP (129) end all trials before they are raised.
    """
    with _as_ctrl_c():
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
    """Return the environment that limits a trial to its CPUs (torch, MKL, OpenBLAS), unless the user has set it."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, int(cpus))))}


@contextmanager
def _as_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, because Ray passes that on unchanged, and on SIGHUP, unless it is ignored.

    The block then ends with SystemExit 143 or 129.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    received: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    stopping = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    handled = [number for number in stopping if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    except KeyboardInterrupt:
        if received:
            sys.exit(128 + received[0])
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
