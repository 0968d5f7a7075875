"""Signals that ask a run to stop. Imports no torch."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last: SLURM's --signal=USR1@60, a minute's notice
_PR_SET_PDEATHSIG = 1  # prctl(2)


class Interrupted(BaseException):
    """A signal ended the run. No Exception: nothing on the way may take it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number  # the shell's own convention
        self.sentence = (
            "stopped from the keyboard" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        )


def die_with_parent() -> None:
    """Have this process killed when the one that started it ends, however that ends; where the system is Linux."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class StopSignals:
    """While open, SIGINT, SIGTERM and SIGUSR1 are noted in `asked`, and raise Interrupted within `at_once`.

    Where they are only noted, a training finishes its step and writes a checkpoint, and a record is written to its end;
    a second SIGINT does not wait for that. A repeated SIGTERM or SIGUSR1 changes nothing: clusters send them to every
    process, launchers once more.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._patient, self._raised = True, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self.install()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def install(self) -> None:
        """Handle the signals, also where somebody else has taken them over meanwhile, as Lightning does."""
        if threading.current_thread() is not threading.main_thread():  # Python allows handlers there alone
            return
        for number in SIGNALS:
            before = signal.signal(number, self._handle)
            self._before.setdefault(number, before)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        self.obey()
        self._patient = False
        try:
            yield
        except Exception:
            if self._raised:  # amid somebody's work, whose cleaning up then failed
                self.obey()
            raise
        finally:
            self._patient = True

    @contextmanager
    def patient(self) -> Iterator[None]:
        """A part of `at_once` in which signals are only noted, to be obeyed at its end."""
        self._patient = True
        yield
        self._patient = False
        self.obey()

    def obey(self) -> None:
        """Raise Interrupted where a signal has come."""
        if self.asked is not None:
            raise Interrupted(self.asked)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = self.asked is None
        if first:
            self.asked = number
        if (number == signal.SIGINT and not first) or (first and not self._patient):
            self._raised = True
            self.obey()
