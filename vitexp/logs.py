"""Who hears what: people the lines of vitexp, train.log everything."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

# Their chatter belongs in the file, not in the terminal; "py.warnings" is Python's own warnings.
LIBRARIES = ("lightning.pytorch", "lightning.fabric", "py.warnings")


class _ConsoleHandler(logging.Handler):
    """Whole lines through rich, which keeps them above a progress bar; not wrapped, so that paths can be copied."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(self.format(record), soft_wrap=True, markup=False, highlight=False)


class _LogFile(logging.FileHandler):
    """A full disk costs the lines that do not fit; it must not drown the one sentence that says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def logging_to(path: Path, console: Console) -> Iterator[None]:
    """Inside, vitexp's messages go to `console` and `path`, and those of the libraries to `path` alone."""
    file = _LogFile(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    people = _ConsoleHandler(console)
    ours = logging.getLogger("vitexp")
    loggers = [ours, *map(logging.getLogger, LIBRARIES)]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    logging.captureWarnings(True)
    try:
        for logger in loggers:
            logger.handlers = [file, people] if logger is ours else [file]
            logger.setLevel(logging.DEBUG if logger is ours else logging.INFO)
            logger.propagate = False
        yield
    finally:
        logging.captureWarnings(False)
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        file.close()
