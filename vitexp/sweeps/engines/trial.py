"""One trial: a training run in its own process, supervised until it ends; result.json records the outcome."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vitexp.errors import UserError
from vitexp.runs.record import SCHEMA, TRIAL_LOCK, DamagedRecord, NewerRecord, RunRecord, now, read_result
from vitexp.sweeps.engines.warm import TRAIN, Forked
from vitexp.system.disk import write_atomically
from vitexp.system.lock import hold, is_held

_POLL_S = 0.02
# How long a trial may take to write its checkpoint after each signal, before the next one and finally SIGKILL.
_PATIENCE_S = {signal.SIGINT: 10.0, signal.SIGTERM: 5.0}
_WAITS = "waiting for %s, which runs the trial in %s"

log = logging.getLogger(__name__)

Process = subprocess.Popen[bytes] | Forked


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a sweep: `vitexp train <overrides>`."""

    row: str  # label of the table's row
    seed: int
    overrides: tuple[str, ...]  # complete
    folder: Path  # absolute; contains result.json
    command: tuple[str, ...]  # the whole command line
    fold: int | None = None  # its validation part, in a sweep over folds

    @property
    def repetition(self) -> str:
        """What distinguishes it from the other trials of its row: "seed 0", or "seed 0, fold 2"."""
        return repetition(self.seed, self.fold)

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.folder / "trial.log"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Event: the engine is about to start trials."""

    slots: int  # concurrent trials
    where: str  # the hardware or cluster, in words


@dataclass(frozen=True, kw_only=True)
class Started:
    """Event: a trial has started in its slot."""

    trial: Trial
    host: str
    gpus: str | None  # its CUDA_VISIBLE_DEVICES; None: not set


@dataclass(frozen=True)
class Finished:
    """Event: a trial is completed, or will not be tried again."""

    trial: Trial
    status: str  # completed | failed | interrupted
    error: str | None
    attempts: int  # processes started by this sweep; 0 if another one completed it meanwhile
    exit_code: int | None  # of the last process, 128 + n if signal n killed it
    seconds: float


Event = Ready | Started | Finished


def repetition(seed: int, fold: int | None) -> str:
    """Return "seed 0", or "seed 0, fold 2"."""
    return f"seed {seed}" if fold is None else f"seed {seed}, fold {fold}"


def status(trial: Trial) -> str | None:
    """Return the status in its result.json; None without a readable one. Raises NewerRecord."""
    result = _result(trial)
    return None if result is None else str(result["status"])


def run_trial(
    trial: Trial,
    *,
    retries: int,
    timeout: float | None,
    environment: Mapping[str, str],
    cwd: Path,
    warm: str | None = None,
) -> Iterator[Started | Finished]:
    """Run `trial` until it is completed or out of attempts; yield Started, then Finished.

    The supervisor of a trial and its process hold trial.lock in its folder; a "running" in result.json without that
    lock was left by a process that died, and the trial is resumed. Invalid input (exit code 2) is not tried again.

    timeout: seconds per attempt; None is no limit. environment: variables of the trial's process in addition to ours.
    warm: the address of a warm process that may fork the trial; otherwise, a process starts that imports everything.
    """
    start, attempts, code, failure = time.monotonic(), 0, None, None
    yield Started(trial=trial, host=socket.gethostname(), gpus=environment.get("CUDA_VISIBLE_DEVICES"))
    try:
        trial.folder.mkdir(parents=True, exist_ok=True)
        # Without a limit: another sweep runs the trial, or a process of it that outlived its sweep.
        path = trial.folder / TRIAL_LOCK
        with hold(path, wait=True, waiting=lambda who: log.info(_WAITS, who.text, trial.folder)) as lock:
            while status(trial) != "completed" and attempts <= retries and code != UserError.exit_code:
                attempts += 1
                start_process = partial(_start, trial, environment=environment, cwd=cwd, lock=lock, warm=warm)
                code = _attempt(trial, timeout=timeout, environment=environment, start_process=start_process)
    except OSError as error:  # no space or no permission: this trial fails, not the sweep
        failure = f"{type(error).__name__}: {error}"
        with suppress(OSError):
            record_failure(trial, failure)
    unknown = {"status": "failed", "error": failure or f"{trial.folder / 'result.json'} cannot be read"}
    result = unknown if failure else _result(trial) or unknown
    seconds = time.monotonic() - start
    yield Finished(trial, result["status"], result.get("error"), attempts=attempts, exit_code=code, seconds=seconds)


def record_interruption(trial: Trial) -> None:
    """Write "interrupted" into result.json for a trial that was stopped before its process could record it."""
    if status(trial) == "running" and not is_held(trial.folder / TRIAL_LOCK):
        _record(trial).finish("interrupted", error="the sweep was stopped")


def record_failure(trial: Trial, error: str) -> Finished:
    """Write "failed" into result.json for a trial whose supervisor failed, unless it had completed before."""
    if status(trial) != "completed":
        trial.folder.mkdir(parents=True, exist_ok=True)
        _record(trial).finish("failed", error=error)
    result = _result(trial) or {"status": "failed", "error": error}
    return Finished(trial, result["status"], result.get("error"), attempts=1, exit_code=None, seconds=0.0)


def _attempt(
    trial: Trial, *, timeout: float | None, environment: Mapping[str, str], start_process: Callable[[], Process]
) -> int:
    """Run one process of `trial` and return its exit code. Afterwards result.json never says "running"."""
    _record(trial).update(status="running", error=None, finished_at=None)
    attempts = _earlier_attempts(trial)
    this = {"started_at": now(), "host": socket.gethostname(), "gpus": environment.get("CUDA_VISIBLE_DEVICES")}
    _write_attempts(trial, [*attempts, this])
    length = trial.log.stat().st_size if trial.log.exists() else 0
    start, code, late = time.monotonic(), None, False
    try:
        code, late = _supervise(start_process(), timeout=timeout)
    finally:  # even if Ctrl-C or Ray ends it
        if code is None and status(trial) == "running":
            _record(trial).finish("interrupted", error="the sweep was stopped")
        seconds = round(time.monotonic() - start, 3)
        _write_attempts(trial, [*attempts, {**this, "exit_code": code, "seconds": seconds}])
    reason = f"did not end within engine.timeout={timeout:g} s" if late else _death(code)
    # A trial that is still "running" died without recording anything.
    if status(trial) == "running" or (late and status(trial) != "completed"):
        _record(trial).finish("failed", error=f"{reason}{_last_words(trial.log, length)}")
    return code


def _start(trial: Trial, *, environment: Mapping[str, str], cwd: Path, lock: int, warm: str | None) -> Process:
    """Start `trial` in a process group that ends with this process."""
    env = {**os.environ, **environment}
    with open(trial.log, "ab") as output:
        if warm is not None and trial.command[: len(TRAIN)] == TRAIN:
            words = trial.command[len(TRAIN) :]
            if forked := Forked.start(warm, words, output=output.fileno(), lock=lock, env=env, cwd=cwd):
                return forked
        files: dict[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT, "cwd": cwd, "env": env}
        if sys.platform == "win32":  # without a guard, which needs forks
            group = subprocess.CREATE_NEW_PROCESS_GROUP
            return subprocess.Popen(trial.command, stdin=subprocess.DEVNULL, creationflags=group, **files)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), *trial.command],
            stdin=subprocess.PIPE,  # never written to: the guard notices when it is closed
            start_new_session=True,
            pass_fds=[lock],
            **files,
        )


def _supervise(process: Process, *, timeout: float | None) -> tuple[int, bool]:
    """Return the exit code of `process` when it has ended, and whether it timed out."""
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    late = False
    try:
        while process.poll() is None and not late:
            time.sleep(_POLL_S)  # not in wait(), which Ray cannot cancel
            late = time.monotonic() > deadline
    finally:
        _stop(process)
    return process.wait(), late


def _stop(process: Process) -> None:
    """End the process group, patiently at first; then kill what remains of it."""
    try:
        for number, patience in _PATIENCE_S.items():
            if process.poll() is None:
                _signal_group(process, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
    finally:  # even after a second Ctrl-C
        with suppress(ProcessLookupError):
            _signal_group(process, None)
        process.wait()


def _signal_group(process: Process, number: int | None) -> None:
    """Send a signal to a trial and its children; None kills them. On Windows, every signal is Ctrl-Break."""
    if sys.platform != "win32":
        os.killpg(process.pid, signal.SIGKILL if number is None else number)
    elif number is None:
        process.kill()
    else:
        process.send_signal(signal.CTRL_BREAK_EVENT)


def _death(code: int) -> str:
    """Return the reason why a process ended without recording anything itself."""
    if code > 128 and code - 128 in set(signal.Signals):
        return f"killed by {signal.Signals(code - 128).name}"
    return f"exit code {code}" if code else "ended without a result"


def _last_words(log: Path, since: int) -> str:
    """Return the last line of `log` after byte `since`, as the end of a sentence; empty if there is none."""
    with open(log, "rb") as file:
        file.seek(max(since, log.stat().st_size - 4096))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((f": {line}" for line in reversed(lines) if line), "")


def _record(trial: Trial) -> RunRecord:
    """Return the record in the trial's folder, or a new one with what is known about the trial."""
    known = {"run_id": trial.folder.name, "name": trial.folder.parent.name, "overrides": list(trial.overrides)}
    unknown = dict.fromkeys(("config_hash", "data", "model", "metrics", "timing", "environment"))
    none_yet = dict.fromkeys(("epochs", "steps", "images_seen"), 0)
    fresh = {"schema": SCHEMA, **known, **unknown, **none_yet, "seed": trial.seed, "started_at": now()}
    return RunRecord(trial.folder, _result(trial) or fresh)


def _result(trial: Trial) -> dict[str, Any] | None:
    """Return the record of a trial; None if it is missing or damaged: the trial then runs again. Raises NewerRecord."""
    try:
        return read_result(trial.folder)
    except NewerRecord:
        raise
    except (OSError, DamagedRecord):
        return None


def _earlier_attempts(trial: Trial) -> list[dict[str, Any]]:
    try:
        attempts = json.loads((trial.folder / "trial.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return attempts if isinstance(attempts, list) else []


def _write_attempts(trial: Trial, attempts: list[dict[str, Any]]) -> None:
    write_atomically(trial.folder / "trial.json", json.dumps(attempts, indent=2) + "\n")
