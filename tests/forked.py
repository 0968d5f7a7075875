"""Run `vitexp train` in processes that tests can kill at any moment, without importing torch in each of them."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.conftest import CONF
from vitexp.sweeps.engines.warm import Forked, warm_process

TRAIN = CONF.parent / "train.py"


class Server:
    """Run trainings forked by a warm process, as sweeps do."""

    def __init__(self) -> None:
        address = warm_process({})
        assert address is not None, "forks are unsafe on this system"
        self.address = address

    def start(self, log: Path, *arguments: str, **environment: str) -> Forked:
        """Start `vitexp train *arguments` with additional variables, and append its output to `log`."""
        with log.open("ab") as output:
            return self.start_into(output.fileno(), *arguments, **environment)

    def start_into(self, output: int, *arguments: str, **environment: str) -> Forked:
        """Do the same with a descriptor for the output."""
        env = {**os.environ, **environment}
        process = Forked.start(self.address, arguments, output=output, lock=output, env=env, cwd=CONF.parent)
        assert process is not None, "the warm process cannot fork"
        return process

    def end(self, process: Forked, *, timeout: float = 120.0) -> int:
        """Return the exit code of `process`, 128 + n if signal n killed it.

        Raises subprocess.TimeoutExpired, and kills the process, after `timeout` seconds.
        """
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise

    def train(self, log: Path, *arguments: str, timeout: float = 120.0, **environment: str) -> int:
        """Run `vitexp train *arguments` with additional variables to its end and return the exit code."""
        return self.end(self.start(log, *arguments, **environment), timeout=timeout)


def kill(process: Forked, number: int) -> None:
    """Send a signal to the training itself, not to its guard."""
    with suppress(ProcessLookupError, FileNotFoundError):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if len(children) == 2:  # the one that watches the parent, and the training
            os.kill(int(children[1]), number)
