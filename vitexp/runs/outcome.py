"""How a run ends: completed, failed or interrupted, and what is still written then."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

from vitexp.errors import UserError
from vitexp.runs.record import RunRecord
from vitexp.runs.report import write_report
from vitexp.system import disk
from vitexp.system.disk import typed
from vitexp.system.signals import Interrupted

log = logging.getLogger(__name__)


class FullDisk(UserError):
    """There is no room for what the run wants to write."""

    exit_code = 1


def record_outcome(record: RunRecord, go: Callable[[], None]) -> None:
    """Do `go`, and write into the record how it ended; then the report, whatever happened.

    Raises what `go` raised, but FullDisk where there was no room, and Interrupted where a signal ended it. The
    last line says what else is not written.
    """
    disk.forget()
    try:
        go()
        record.finish("completed")
    except Interrupted as interrupted:
        with disk.tolerating("result.json"):
            record.finish("interrupted", error=interrupted.sentence)
        log.info("%s; resume=%s goes on", interrupted.sentence, typed(record.folder))
        raise
    except Exception as error:
        failure = error if isinstance(error, UserError) else _full_disk(error, record.folder)
        sentence = str(failure or f"{type(error).__name__}: {error}")
        log.debug("failed", exc_info=error)
        with disk.tolerating("result.json"):
            record.finish("failed", error=sentence)
        if failure is None or failure is error:
            raise
        raise failure from error
    finally:
        report = record.folder / "report.html"
        try:
            with disk.tolerating(report.name):
                write_report(record.folder)
        except MemoryError:  # what went wrong before must be heard
            log.warning("no memory for %s", report.name)
        made = {"run folder": record.folder, "figures": record.folder / "figures", "report": report}
        log.info("\n".join(f"{name:<11} {typed(path)}" for name, path in made.items() if path.exists()))
        if unwritten := disk.unwritten():
            reasons = "; ".join(sorted({*unwritten.values()}))
            log.warning("not written, or not in full: %s (%s)", ", ".join(unwritten), reasons)


def _full_disk(error: Exception, folder: Path) -> FullDisk | None:
    """A FullDisk where that is why `error` came."""
    reason = disk.refusal(error)
    if reason is None:
        return None
    if reason == os.strerror(errno.ENOSPC):
        return FullDisk(f"the disk of {folder} is full; make room, or set log_dir to another disk.")
    return FullDisk(f"the disk of {folder} refuses to be written to ({reason}); set log_dir to another disk.")
