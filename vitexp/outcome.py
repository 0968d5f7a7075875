"""How a run ends: completed, failed or interrupted, and what is still written then."""

from __future__ import annotations

import errno
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vitexp.errors import UserError
from vitexp.records import RunRecord, typed
from vitexp.report import write_report
from vitexp.signals import Interrupted

log = logging.getLogger(__name__)


class FullDisk(UserError):
    """There is no room for what the run wants to write."""

    exit_code = 1


def record_outcome(record: RunRecord, go: Callable[[], None]) -> None:
    """Do `go`, and write into the record how it ended; then the report, whatever happened.

    Raises what `go` raised, but FullDisk where there was no room, and SystemExit(128 + n) where signal n ended it.
    """
    try:
        go()
        record.finish("completed")
    except Interrupted as interrupted:
        record.finish("interrupted", error=interrupted.sentence)
        log.info("%s; resume=%s goes on", interrupted.sentence, typed(record.folder))
        sys.exit(interrupted.exit_code)
    except Exception as error:
        failure = error if isinstance(error, UserError) else _full_disk(error, record.folder)
        sentence = str(failure or f"{type(error).__name__}: {error}")
        log.debug("failed", exc_info=error)
        with _whatever_the_disk_takes():
            record.finish("failed", error=sentence)
        if failure is None or failure is error:
            raise
        raise failure from error
    finally:
        with _whatever_the_disk_takes():
            report = write_report(record.folder)
            made = {"run folder": record.folder, "figures": record.folder / "figures", "report": report}
            log.info("\n".join(f"{name:<11} {typed(path)}" for name, path in made.items() if path.exists()))


def _full_disk(error: Exception, folder: Path) -> FullDisk | None:
    """A FullDisk where that is why `error` came; torch and safetensors have errors of their own for it."""
    named = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if named or shutil.disk_usage(folder).free < 1 << 20:
        return FullDisk(f"the disk of {folder} is full; make room, or set log_dir to another disk.")
    return None


@contextmanager
def _whatever_the_disk_takes() -> Iterator[None]:
    """What is written last must not hide what went wrong before."""
    try:
        yield
    except OSError as error:
        log.warning("could not write the end of the record: %s", error)
