"""Signals that ask a run to stop. Imports no torch."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# USR1: SLURM's advance warning, --signal=USR1@60. HUP: the terminal was closed. BREAK: both of these on Windows.
_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGBREAK")
SIGNALS: tuple[signal.Signals, ...] = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
PATIENCE_S = 45.0  # how long a run may take to end after a signal
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
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError, TypeError):
        return
    if os.getppid() != parent:  # it ended while this process was starting
        os._exit(1)


class StopSignals:
    """A context that records the signals of SIGNALS in `requested`; inside `at_once`, they raise Interrupted.

    Where signals are only recorded, training finishes its step and writes a checkpoint, and records are written
    completely; a second SIGINT does not wait for that. Others that are repeated change nothing: clusters send them to
    every process, and launchers repeat them. SIGHUP is left alone if it is ignored, as under nohup.

    A thread calls `on_overdue` and exits if the program does not end within PATIENCE_S after a signal, because it waits
    for something that never happens: a loader, a device, another process.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.on_overdue: Callable[[str], None] = lambda sentence: None
        self._patient, self._raised = True, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self.install()
        self._watch = _Watch.start_if_possible(self)
        return self

    def __exit__(self, *error: object) -> None:
        if self._watch is not None:
            self._watch.end()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def install(self) -> None:
        """Handle the signals, even if another library has replaced the handlers in the meantime, as Lightning does."""
        if threading.current_thread() is not threading.main_thread():  # Python allows handlers only there
            return
        for number in SIGNALS:
            if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN:
                continue
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


class _Watch:
    """A thread that receives signals even while the main thread is blocked inside a library."""

    def __init__(self, stop: StopSignals) -> None:
        self.stop, self.ended = stop, threading.Event()
        self.socket, self.written = socket.socketpair()
        self.written.setblocking(False)
        signal.set_wakeup_fd(self.written.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._run, name="vitexp-signals", daemon=True).start()

    @classmethod
    def start_if_possible(cls, stop: StopSignals) -> _Watch | None:
        """Start the thread, unless this is not the main thread or an event loop, as in notebooks, receives signals."""
        if threading.current_thread() is not threading.main_thread():
            return None
        if (taken := signal.set_wakeup_fd(-1)) != -1:
            signal.set_wakeup_fd(taken)
            return None
        return cls(stop)

    def end(self) -> None:
        self.ended.set()
        signal.set_wakeup_fd(-1)
        self.written.close()

    def _run(self) -> None:
        while received := self.socket.recv(1):
            number = received[0]
            if number in SIGNALS and not self.ended.wait(PATIENCE_S):
                self.stop.on_overdue(f"{Interrupted(number).sentence}, which took more than {PATIENCE_S:.0f} s")
                os._exit(128 + number)
        self.socket.close()


# A forked process, such as a worker of a data loader, must not report its own signals as those of this process.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
