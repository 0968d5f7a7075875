"""Terminal output that nobody reads any more: drop it, so that it never ends the work."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

# A closed pipe (`| head`), and a closed terminal.
_UNREAD = (errno.EPIPE, errno.EIO, errno.ENXIO, *((errno.EINVAL,) if sys.platform == "win32" else ()))


class _Output(io.TextIOWrapper):
    """A stream that discards what is written after its reader has gone. A full disk still raises."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if error.errno not in _UNREAD or stat.S_ISREG(os.fstat(self.fileno()).st_mode):
            raise error
        # What is still buffered goes there too; otherwise Python would fail at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


@contextmanager
def dropping_unread_output() -> Iterator[None]:
    """Within the block, drop what is printed after standard output or standard error is closed at the other end."""
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if type(stream) is io.TextIOWrapper:  # not that of a notebook, for example
                stack.enter_context(_replaced(name, stream))
        yield


@contextmanager
def _replaced(name: str, stream: io.TextIOWrapper) -> Iterator[None]:
    with suppress(OSError):
        stream.flush()
    file = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115 - lives as long as its wrapper
    # Class names, for example, may have letters that the encoding of the terminal, such as cp1252 or ASCII, lacks.
    errors = stream.errors if stream.encoding.lower().startswith("utf") else "backslashreplace"
    output = _Output(file, stream.encoding, errors, line_buffering=stream.line_buffering)
    setattr(sys, name, output)
    try:
        yield
    finally:
        setattr(sys, name, stream)
        output.flush()
