"""train.py in processes that can be killed at any moment, without the ten seconds of importing torch for each.

A process that has imported everything, and computed nothing, is forked: the child is a process like any other, with
signals, exit code and death of its own.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time
from pathlib import Path

from tests.conftest import CONF

SCRIPT = CONF.parent / "train.py"


def start(log: Path, *arguments: str) -> int:
    """Start `python train.py *arguments`, its output appended to `log`; the process id."""
    import vitexp.run  # noqa: F401 - imported here, so that no child has to

    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
        sys.argv = [str(SCRIPT), *arguments]
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def end(process: int, *, timeout: float = 120.0) -> int:
    """Wait for the process; its exit code, 128 + n where signal n killed it. Kills it after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise TimeoutError(f"no end after {timeout:g} s")


def train(log: Path, *arguments: str, timeout: float = 120.0) -> int:
    """`python train.py *arguments`, to its end; the exit code."""
    return end(start(log, *arguments), timeout=timeout)
