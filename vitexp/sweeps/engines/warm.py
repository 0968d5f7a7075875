"""Trials that start at once: a warm process has imported everything, and forks for every trial.

A forked trial is what `python -m vitexp train ...` would be, with its own environment, working folder, output, signals
and guard. The warm process itself computes nothing, because a fork is safe only
without threads, CUDA contexts and open W&B runs. It ends with the process that started it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from vitexp.sweeps.engines.guard import guarded

TRAIN = (sys.executable, "-m", "vitexp", "train")  # how the command of a trial begins
_POLL_S = 0.02
_ANSWER_S = 120.0  # how long a warm process may take to import everything and fork
# Not vitexp.commands.train itself, which a trial executes.
_FIRST = ("vitexp.config.check", "vitexp.config.multirun", "vitexp.config.secrets", "vitexp.runs.run")
# What a run imports later, if at all: imported while no trial waits.
_LATER = ("pandas", "jinja2", "wandb", "wandb.sdk.launch")
_servers: dict[str, tuple[subprocess.Popen[bytes], str]] = {}  # by the variables they were started with


def warm_process(environment: Mapping[str, str]) -> str | None:
    """Return the address of a warm process with these additional variables; it is started if there is none yet.

    None on systems other than Linux, where a process that has loaded all libraries cannot be forked safely.
    """
    if sys.platform != "linux":
        return None
    key = json.dumps(environment, sort_keys=True)
    if key in _servers and _servers[key][0].poll() is None:
        return _servers[key][1]
    # Under /tmp, because the paths of sockets are limited to 107 characters. The warm process removes it.
    address = f"{tempfile.mkdtemp(prefix='vitexp-', dir='/tmp')}/socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(1024)  # requests wait there while modules are imported
        process = subprocess.Popen(
            [sys.executable, "-m", "vitexp.sweeps.engines.warm", str(listener.fileno())],
            stdin=subprocess.PIPE,  # never written to: the warm process notices when it is closed
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is not for it
            pass_fds=[listener.fileno()],
        )
    _servers[key] = process, address
    atexit.register(shutil.rmtree, Path(address).parent, ignore_errors=True)  # if the warm process was killed
    return address


class Forked:
    """A process that was forked for a trial, the leader of its group; used like subprocess.Popen."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.connection, self.pid = connection, pid
        self.returncode: int | None = None

    @classmethod
    def start(
        cls, address: str, arguments: Sequence[str], *, output: int, lock: int, env: Mapping[str, str], cwd: Path
    ) -> Forked | None:
        """Fork `vitexp train *arguments` with these descriptors; None if no warm process answers at `address`.

        A stopped one may answer later; its trial ends at once then, because nobody supervises it.
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_ANSWER_S)
        request = json.dumps({"arguments": list(arguments), "env": dict(env), "cwd": str(cwd)}).encode()
        try:
            connection.connect(address)
            socket.send_fds(connection, [len(request).to_bytes(8, "big")], [output, lock])
            connection.sendall(request)
            return cls(connection, int(connection.recv(16)))
        except (OSError, ValueError):  # no bytes at all are no number
            connection.close()
            return None

    def poll(self) -> int | None:
        """Return the exit code, 128 + n if signal n killed the process; None while it runs."""
        killed = 128 + signal.SIGKILL
        if self.returncode is None:
            has_gone = not Path(f"/proc/{self.pid}").exists()  # asked first, because it tells its code and then ends
            if select.select([self.connection], [], [], 0)[0]:
                self.returncode = int(self.connection.recv(16) or killed)  # nothing if its guard was killed too
            elif has_gone:
                self.returncode = killed
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        start = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() - start > timeout:
                raise subprocess.TimeoutExpired("train", timeout)
            time.sleep(_POLL_S)
        self.connection.close()
        return code


def _serve(listener: socket.socket) -> None:
    """Fork for every request; return in the trials only. Ends the program when stdin is closed or forks are unsafe."""
    folder, server, later = Path(listener.getsockname()).parent, os.getpid(), list(_LATER)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the guards
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pandas imports pyarrow, if there is one
    try:
        for module in _FIRST:
            importlib.import_module(module)
        while True:
            gc.collect()
            gc.freeze()  # so that no garbage collection of a trial copies what all of them share
            while not (ready := select.select([0, listener.fileno()], [], [], 0 if later else None)[0]):
                importlib.import_module(later.pop(0))
            if 0 in ready or not _can_fork():
                sys.exit()
            connection, _ = listener.accept()
            try:
                request, descriptors = _received(connection)
            except (OSError, ValueError):  # whoever asked is gone
                connection.close()
                continue
            if os.fork() == 0:
                listener.close()
                output, lock = descriptors
                return _become(request, output, lock, connection)
            for descriptor in descriptors:
                os.close(descriptor)
            connection.close()
    finally:
        if os.getpid() == server:
            shutil.rmtree(folder, ignore_errors=True)


def _can_fork() -> bool:
    """Return whether this process has one thread and no CUDA context."""
    if (probe := os.fork()) == 0:
        os._exit(0)
    with suppress(ChildProcessError):
        os.waitpid(probe, 0)
    # The fork has ended the threads of OpenBLAS, which knows how to; those of other libraries remain.
    torch = sys.modules["torch"]
    return len(os.listdir("/proc/self/task")) == 1 and not torch.cuda.is_initialized()


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    size, descriptors, *_ = socket.recv_fds(connection, 8, 2)
    data = b""
    while len(data) < int.from_bytes(size, "big"):
        if not (more := connection.recv(1 << 20)):
            raise ConnectionResetError
        data += more
    return json.loads(data), descriptors


def _become(request: dict[str, Any], output: int, lock: int, connection: socket.socket) -> None:
    """Turn a forked process into the guard of a trial, and its child into the trial, in which this returns."""
    os.setsid()
    connection.send(str(os.getpid()).encode())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    if (code := guarded(connection.fileno())) is not None:
        connection.send(str(code).encode())
        os._exit(0)
    connection.close()
    os.set_inheritable(lock, True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    random.seed()
    sys.argv[1:] = ["train", *request["arguments"]]


def _run_and_exit() -> NoReturn:
    """Run the command in sys.argv, then what Python does at its exit, except freeing all objects.

    That takes two seconds, because it copies the memory that the trials share, and ends with the process anyway.
    """
    code = 1
    try:
        runpy.run_module("vitexp", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    _run_and_exit()
