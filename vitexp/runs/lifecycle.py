"""The life cycle of a run folder: start or resume it, hold its lock, log, and record how the run ends."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from vitexp.config.overrides import command_line, merged, setting
from vitexp.errors import ConfigError, UserError, reason
from vitexp.runs.companions import forget_failures, report_failure
from vitexp.runs.launcher import PARENT, RUN_FOLDER, Meeting
from vitexp.runs.record import LOCK, RunRecord, config_hash, new_run_folder
from vitexp.runs.report import write_report
from vitexp.runs.resume import is_finished, run_to_resume, why_not_resumed
from vitexp.system import disk
from vitexp.system.disk import typed
from vitexp.system.lock import hold
from vitexp.system.signals import Interrupted, die_with
from vitexp.system.terminal import logging_to, plain_console

log = logging.getLogger(__name__)


class FullDisk(UserError):
    """The disk has no space for what the run wants to write."""

    exit_code = 1


@dataclass(frozen=True)
class OpenRun:
    """A run in progress.

    is_complete: it was already complete; there is nothing to do. after: closed once the outcome is recorded, in the
    first process only, for what may take long, such as uploads.
    """

    record: RunRecord
    console: Console
    is_complete: bool = False
    after: ExitStack = field(default_factory=ExitStack)


@contextmanager
def open_run(config: DictConfig, *, overrides: Sequence[str]) -> Iterator[OpenRun]:
    """Start the run of `config`, or resume the one that config.resume names; record how the with block ends.

    On leaving, result.json says "completed", "failed" or "interrupted", and report.html is written, whatever happened.
    A new run that is refused before it trains, for example because an image cannot be decoded, leaves no folder.
    Of the processes of a distributed run, only the first one writes; the others join its run.

    Raises ConfigError for a run that cannot be started or resumed, FullDisk if the disk was full, and otherwise what
    the block raises.
    """
    with _environment():
        if RUN_FOLDER in os.environ:
            die_with(int(os.environ[PARENT]))
            node = f" on node {os.environ['NODE_RANK']}" if config.trainer.num_nodes > 1 else ""
            with _joined(
                Path(os.environ[RUN_FOLDER]), config, f"process {os.environ['LOCAL_RANK']}{node}", expected=None
            ) as opened:
                yield opened
            return
        meeting = Meeting.of(config)
        if meeting.rank == 0:
            with _recorded(config, overrides, meeting) as opened:
                yield opened
            return
        info = meeting.received()
        if "exit_code" in info:
            sys.exit(info["exit_code"])
        if info["is_complete"]:
            yield OpenRun(RunRecord.read(Path(info["folder"]), is_ours=False), Console(quiet=True), is_complete=True)
            return
        process = f"process {meeting.rank}"
        with _joined(Path(info["folder"]), config, process, expected=info["config_hash"]) as opened:
            yield opened


@contextmanager
def _joined(folder: Path, config: DictConfig, process: str, *, expected: str | None) -> Iterator[OpenRun]:
    """Take part in the run in `folder`, which another process records; tell it if this one, `process`, fails.

    expected: the hash of the configuration of the run; None: the recorded one.
    """
    try:
        record = RunRecord.read(folder, is_ours=False)
        if (expected or record.result["config_hash"]) != config_hash(config):
            raise ConfigError(
                "this process was started for a run with a different configuration; every device executes the whole "
                "script, so a script that trains on several devices must train only once."
            )
        console = Console(quiet=True)
        with logging_to(None, console):
            yield OpenRun(record, console)
    except UserError as error:
        with suppress(OSError):
            report_failure(folder, process, str(error))
            sys.exit(error.exit_code)  # the first process prints the message
        raise
    except Exception as error:
        with suppress(OSError):
            report_failure(folder, process, f"{type(error).__name__}: {error}")
        raise


@contextmanager
def _recorded(config: DictConfig, overrides: Sequence[str], meeting: Meeting) -> Iterator[OpenRun]:
    """Start or resume the run as its first process; tell the others of `meeting` where."""
    with ExitStack() as stack:
        try:
            opened = _opened(config, overrides, stack)
        except BaseException as error:
            meeting.announce(exit_code=getattr(error, "exit_code", 1))
            raise
        meeting.announce(
            folder=str(opened.record.folder), is_complete=opened.is_complete, config_hash=config_hash(config)
        )
        yield opened


def _opened(config: DictConfig, overrides: Sequence[str], stack: ExitStack) -> OpenRun:
    console, folder = plain_console(), run_to_resume(config)
    if folder is not None and is_finished(folder, config):
        console.print(f"{typed(folder)} is already complete; drop resume= to start a new run.", soft_wrap=True)
        return OpenRun(RunRecord.read(folder), console, is_complete=True)
    reason = why_not_resumed(config) if folder is None else None  # before its own record is among those of stopped runs
    resumes, folder = folder is not None, folder or new_run_folder(config)
    # Before a record can be seen there: another process with resume=auto must not take it for a stopped run.
    lock, earlier = folder / LOCK, b""
    refused = stack.enter_context(ExitStack())  # closed last: the loggers write into the folder until they are closed
    is_ours = not resumes and not any(folder.iterdir())  # that of a trial holds a lock: its sweep reads the record
    with suppress(OSError):  # some network drives have no locks
        earlier = lock.read_bytes() if lock.exists() else b""
        stack.enter_context(hold(lock, wait=False))
    if resumes:
        record = RunRecord.resume(folder, config, overrides=list(overrides))
        stack.callback(_restore_unless_begun, record, lock, earlier)
        forget_failures(folder)
    else:
        record = RunRecord.start(folder, config, overrides=merged([], overrides))
    stack.enter_context(logging_to(record.folder / "train.log", console, has_begun=lambda: record.has_begun))
    if reason:
        log.info(reason)
    opened = OpenRun(record, console)
    stack.enter_context(opened.after)
    stack.enter_context(_outcome(record, refused if is_ours else None))
    return opened


def _restore_unless_begun(record: RunRecord, lock: Path, earlier: bytes) -> None:
    """Write the `earlier` content of the lock file, which names its holder: an attempt that fails changes nothing."""
    if not record.has_begun:
        with suppress(OSError):
            lock.write_bytes(earlier)


@contextmanager
def _environment() -> Iterator[None]:
    """Afterwards, remove the seeds and ranks that Lightning and others set."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _outcome(record: RunRecord, refused: ExitStack | None) -> Iterator[None]:
    """Record how the block ends, write the report, and say what could not be written.

    A run that could not be resumed keeps the outcome of its last attempt. refused: if the block refuses the run before
    it trains, the folder is removed when this is closed; None: it is kept.
    """
    is_refused = False
    disk.forget()
    try:
        yield
        record.finish("completed")
    except Interrupted as interrupted:
        _end(record, "interrupted", interrupted.sentence)
        again = command_line("train", setting("resume", typed(record.folder)))
        log.info("%s; %s resumes the run", interrupted.sentence, again)
        raise
    except BaseException as error:  # a library may exit the program
        failure = error if isinstance(error, UserError) else _full_disk(error, record.folder)
        log.debug("failed", exc_info=error)
        _end(record, "failed", str(failure or f"{type(error).__name__}: {error}"))
        is_refused = isinstance(error, UserError) and error.exit_code == UserError.exit_code and not record.has_trained
        if is_refused and refused is not None:
            refused.callback(_remove, record.folder)
        if failure is None or failure is error:
            raise
        raise failure from error
    finally:
        if record.has_begun and not is_refused:
            _write_report(record.folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # there are other runs with this name
        folder.parent.rmdir()


def _end(record: RunRecord, status: str, error: str) -> None:
    # "running" was left by a process that was killed, or is about this one, if it runs a trial of a sweep.
    if record.has_begun or record.result["status"] == "running":
        with disk.tolerating("result.json"):
            record.finish(status, error=error)


def end_at_once(record: RunRecord, status: str, error: str) -> None:
    """Record from another thread how the run ended, just before the program exits; keep an outcome that is recorded."""
    if record.has_begun and record.result["status"] != "running":
        return
    _end(record, status, error)
    if record.has_begun:
        _write_report(record.folder)


def _write_report(folder: Path) -> None:
    report = folder / "report.html"
    try:
        with disk.tolerating(report.name):
            write_report(folder)
    except MemoryError:  # must not hide an earlier error
        log.warning("not enough memory for %s", report.name)
    except Exception as error:  # metrics and weights are written; the page is only a view of them
        log.warning("cannot write %s (%s)", report.name, reason(error))
        log.debug("the report failed", exc_info=error)
    written = {"run folder": folder, "figures": folder / "figures", "report": report}
    log.info("\n".join(f"{name:<11} {typed(path)}" for name, path in written.items() if path.exists()))
    if unwritten := disk.unwritten():
        reasons = "; ".join(sorted({*unwritten.values()}))
        log.warning("not written, or not completely: %s (%s)", ", ".join(unwritten), reasons)


def _full_disk(error: BaseException, folder: Path) -> FullDisk | None:
    """Return a FullDisk if a failed write caused `error`."""
    reason = disk.refusal(error)
    if reason is None:
        return None
    if reason == os.strerror(errno.ENOSPC):
        return FullDisk(f"the disk of {folder} is full; free some space, or set log_dir to another disk.")
    return FullDisk(f"cannot write to the disk of {folder} ({reason}); set log_dir to another disk.")
