"""Send vitexp's messages to the terminal and everything to train.log."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from vitexp.system.disk import GrowingFile, tolerating

# Their messages belong in the file, not in the terminal; "py.warnings" are Python's own warnings.
LIBRARIES = ("lightning.pytorch", "lightning.fabric", "py.warnings")


def say_starting() -> None:
    """Tell a person at a terminal that the command has started; a refusal in a file stays the only line there."""
    if sys.stdout.isatty() and _is_first_process():
        print("reading the configuration ...", flush=True)


def say_loading() -> None:
    """Say that torch and Lightning are being imported, which takes seconds, and on a busy machine a minute."""
    if "torch" not in sys.modules and _is_first_process():
        print("loading torch ...", flush=True)


def _is_first_process() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: names of classes, files and rows may look like Rich's markup."""
    return Console(stderr=stderr, markup=False, emoji=False)


class _ConsoleHandler(logging.Handler):
    """A handler that prints through rich, above any progress bar; unwrapped, so that paths can be copied."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        with tolerating("terminal output"):  # which may be redirected to a file on a full disk
            self.console.print(self.format(record), soft_wrap=True, markup=False, highlight=False)


class _LogFile(logging.Handler):
    """A handler that appends lines to a file; what a full disk refuses is written once there is space.

    has_begun: whether the file may be written; until then, lines wait.
    """

    def __init__(self, path: Path, has_begun: Callable[[], bool]) -> None:
        super().__init__()
        self.file, self.has_begun = GrowingFile(path), has_begun
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{self.format(record)}\n"
        if not self.has_begun():
            self.file.waiting += line.encode()
            return
        with tolerating(self.file.path.name):
            self.file.append(line)


@contextmanager
def logging_to(path: Path | None, console: Console, *, has_begun: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Send vitexp's messages to `console` and `path`, and messages of libraries to `path` only; None drops them.

    has_begun: whether `path` may be written. Messages wait until it returns true, and are lost if it never does.
    Tracebacks of threads also go to `path`: whoever needs the result of a thread reports its failure in one sentence.
    """
    file = logging.NullHandler() if path is None else _LogFile(path, has_begun)
    people = _ConsoleHandler(console)
    ours = logging.getLogger("vitexp")
    loggers = [ours, *map(logging.getLogger, LIBRARIES)]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    hook, threading.excepthook = threading.excepthook, _log_thread_error
    raising, logging.raiseExceptions = logging.raiseExceptions, False  # wandb's log fills stderr when the disk is full
    logging.captureWarnings(True)
    try:
        for logger in loggers:
            logger.handlers = [file, people] if logger is ours else [file]
            logger.setLevel(logging.DEBUG if logger is ours else logging.INFO)
            logger.propagate = False
        yield
    finally:
        logging.captureWarnings(False)
        threading.excepthook, logging.raiseExceptions = hook, raising
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def _log_thread_error(ended: threading.ExceptHookArgs) -> None:
    logging.getLogger("vitexp").debug("thread %s ended", ended.thread, exc_info=ended.exc_value)
