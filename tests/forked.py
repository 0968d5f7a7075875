"""Run train.py in processes that tests can kill at any moment, without importing torch in each of them.

A server that has imported everything, but computed nothing, forks for every command. The child is an ordinary process
with its own signals and exit code.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.conftest import CONF

TRAIN = CONF.parent / "train.py"


class Server:
    """Run train.py in forked processes, one at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked"],
            cwd=CONF.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, log: Path, *arguments: str) -> int:
        """Start `python train.py *arguments`, append its output to `log`, and return the process id."""
        return int(self._ask(start=[str(log), *arguments]))

    def end(self, process: int, *, timeout: float = 120.0) -> int:
        """Return the exit code of `process`, 128 + n if signal n killed it.

        Raises TimeoutError, and kills the process, after `timeout` seconds.
        """
        code = self._ask(end=process, timeout=timeout)
        if code is None:
            raise TimeoutError(f"still running after {timeout:g} s")
        return int(code)

    def train(self, log: Path, *arguments: str, timeout: float = 120.0) -> int:
        """Run `python train.py *arguments` to its end and return the exit code."""
        return self.end(self.start(log, *arguments), timeout=timeout)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _ask(self, **question: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def _serve() -> None:
    import vitexp.runs.run  # noqa: F401 - before the fork

    for line in sys.stdin:
        question = json.loads(line)
        if "start" in question:
            log, *arguments = question["start"]
            answer: int | None = os.fork()
            if answer == 0:
                _become(log, arguments)
        else:
            answer = _wait(question["end"], question["timeout"])
        print(json.dumps(answer), flush=True)


def _become(log: str, arguments: list[str]) -> None:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = [str(TRAIN), *arguments]
        try:
            runpy.run_path(str(TRAIN), run_name="__main__")
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(process: int, timeout: float) -> int | None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


if __name__ == "__main__":
    _serve()
