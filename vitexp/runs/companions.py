"""The other processes of a run on several devices: start those of this machine, and notice the failure of any."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import ParallelStrategy

from vitexp.errors import UserError
from vitexp.runs.launcher import PARENT, RUN_FOLDER
from vitexp.system.rendezvous import meet_on_loopback
from vitexp.system.signals import SIGNALS

_FAILED = ".failed-"  # in the run folder; a file for each process that failed, with its sentence
_POLL_S = 0.2
_NOTICE_S = 3.0  # how long the failure of another process may take to become known here
_UNWIND_S = 10.0  # how long this process may take to notice that another one is gone
_GONE = re.compile("gloo|nccl|connection|peer|socket|timed out|broken pipe", re.IGNORECASE)


class CompanionFailed(UserError):
    """Another process of the run failed."""

    exit_code = 1


def report_failure(folder: Path, process: str, error: str) -> None:
    """Tell the first process of the run in `folder` that this one, named `process`, fails. Raises OSError."""
    path = folder / f"{_FAILED}{process.replace(' ', '-')}"
    path.with_suffix(".new").write_text(f"{process} failed: {error}", encoding="utf-8")
    path.with_suffix(".new").replace(path)


def forget_failures(folder: Path) -> None:
    """Remove what processes of an earlier attempt have reported."""
    for path in folder.glob(f"{_FAILED}*"):
        path.unlink(missing_ok=True)


@contextmanager
def companions(trainer: Trainer, folder: Path, *, end: Callable[[str], None]) -> Iterator[None]:
    """Start the other processes that train with `trainer` on this machine, unless a launcher did, and watch all.

    If another process fails, the block ends with CompanionFailed. If this process cannot end the block, because it
    waits for the other one in a collective operation, `end` is called with the sentence and the program exits.
    """
    with _started(trainer, folder) as processes:
        if trainer.world_size == 1 or RUN_FOLDER in os.environ or not trainer.is_global_zero:
            yield
            return
        watch = _Watch(folder, processes, end)
        watch.start()
        try:
            yield
        except UserError:  # not a consequence
            raise
        except BaseException as error:
            if isinstance(error, Exception) and not _is_consequence(error):
                raise
            sentence = watch.failure(patience=_NOTICE_S if isinstance(error, Exception) else 0.0)
            if sentence is None and not isinstance(error, Exception):
                raise
            gone = "another process of this run ended without a message; its launcher may say why."
            raise CompanionFailed(sentence or gone) from error
        finally:
            watch.stop.set()


def _is_consequence(error: Exception) -> bool:
    """Return whether `error` may only say that another process has gone."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and _GONE.search(str(error)) is not None
    )


@contextmanager
def _started(trainer: Trainer, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start this machine's other processes if this one has to; kill them if the block fails.

    Lightning would start them itself, but kill this process within seconds after one of them failed.
    """
    strategy = trainer.strategy
    environment = strategy.cluster_environment if isinstance(strategy, ParallelStrategy) else None
    if not isinstance(environment, LightningEnvironment) or RUN_FOLDER in os.environ:
        yield []
        return
    store = meet_on_loopback(trainer)  # open as long as this variable lives
    os.environ.update(
        MASTER_ADDR=environment.main_address,
        MASTER_PORT=str(environment.main_port),
        NODE_RANK=str(environment.node_rank()),
        WORLD_SIZE=str(trainer.world_size),
        LOCAL_RANK="0",  # also tells Lightning that all processes have been started
    )
    variables = {**os.environ, RUN_FOLDER: str(folder), PARENT: str(os.getpid())}
    processes = [
        subprocess.Popen(_this_command(), env={**variables, "LOCAL_RANK": str(rank)})
        for rank in range(1, trainer.num_devices)
    ]
    try:
        yield processes
    except BaseException as error:
        for process in processes:  # after a signal, all of them stop after the same step
            with suppress(subprocess.TimeoutExpired):
                process.wait(0 if isinstance(error, Exception) else _UNWIND_S)
            process.kill()
        raise
    del store


def _this_command() -> list[str]:
    import __main__  # only now, because it may be imported before it is complete

    spec = getattr(__main__, "__spec__", None)
    start = [os.path.abspath(sys.argv[0])] if spec is None else ["-m", spec.name]
    return [sys.executable, *start, *sys.argv[1:]]


class _Watch(threading.Thread):
    """A thread of the first process that looks for failures of the others until `stop` is set."""

    def __init__(self, folder: Path, processes: list[subprocess.Popen[bytes]], end: Callable[[str], None]) -> None:
        super().__init__(daemon=True, name="vitexp-companions")
        self.folder, self.processes, self.end = folder, processes, end
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(_POLL_S):
            if (sentence := self.failure()) is not None:
                if self.stop.wait(_UNWIND_S):
                    return
                self.end(sentence)
                for process in self.processes:
                    process.kill()
                print(f"vitexp: {sentence}", file=sys.stderr, flush=True)
                os._exit(CompanionFailed.exit_code)

    def failure(self, *, patience: float = 0.0) -> str | None:
        """Return a sentence about the first process that failed; None if none does within `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            for path in sorted(self.folder.glob(f"{_FAILED}*")):
                if path.suffix != ".new":
                    return path.read_text(encoding="utf-8")
            for rank, process in enumerate(self.processes, start=1):
                if (code := process.poll()) and code not in {128 + number for number in SIGNALS}:
                    return f"process {rank} {_ended(code)}."
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_S)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}; its message is printed above"
    name = signal.Signals(-code).name
    hint = "; perhaps the machine has too little memory" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
