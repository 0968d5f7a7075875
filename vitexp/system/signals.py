"""Signals that ask a run to stop. Imports no torch."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # USR1: SLURM's advance warning, --signal=USR1@60
_PR_SET_PDEATHSIG = 1  # prctl(2)


class Interrupted(BaseException):
    """A signal ended the run. Not an Exception, so that no handler mistakes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number  # the shell's own convention
        self.sentence = (
            "stopped from the keyboard" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        )


def die_with(parent: int) -> None:
    """Have this process killed when its parent, process `parent`, ends, however it ends (Linux only)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended while this process was starting
        os._exit(1)


class StopSignals:
    """A context that records SIGINT, SIGTERM and SIGUSR1 in `requested`; inside `at_once`, they raise Interrupted.

    Where signals are only recorded, training finishes its step and writes a checkpoint, and records are written
    completely; a second SIGINT does not wait for that. A repeated SIGTERM or SIGUSR1 changes nothing: clusters send
    them to every process, and launchers repeat them.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
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
        """Handle the signals, even if another library has replaced the handlers in the meantime, as Lightning does."""
        if threading.current_thread() is not threading.main_thread():  # Python allows handlers only there
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
            if self._raised:  # inside a library, whose cleanup then failed
                self.obey()
            raise
        finally:
            self._patient = True

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Within `at_once`, only record signals; obey them at the end."""
        self._patient = True
        yield
        self._patient = False
        self.obey()

    def obey(self) -> None:
        """Raise Interrupted if a signal has arrived."""
        if self.requested is not None:
            raise Interrupted(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = self.requested is None
        if first:
            self.requested = number
        if (number == signal.SIGINT and not first) or (first and not self._patient):
            self._raised = True
            self.obey()
