"""A disk that takes no more: the run goes on without what it refuses, and says what that was. Imports no torch."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

# No room, no quota, larger than a file may be, broken, and read-only since it broke.
_REFUSALS = tuple(os.strerror(each) for each in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS))
# All that torch.save has to say of a file that could not be written to its end; it does not know why.
_UNFINISHED = ("PytorchStreamWriter failed writing", "inline_container.cc", "iostream error")

# Of the run that goes on in this process: what is not written and why, and the kinds of things already warned of.
_unwritten: dict[str, str] = {}
_told: set[str] = set()


def refusal(error: BaseException | None) -> str | None:
    """The system's words, such as "No space left on device", where a disk that refuses to be written to caused `error`.

    Found also in the errors of their own into which safetensors and others put them; torch.save gives no reason, and
    what it could not finish counts as "No space left on device".
    """
    unfinished = False
    while error is not None:
        said = (error.strerror or "") if isinstance(error, OSError) else str(error)
        if found := next((words for words in _REFUSALS if words in said), None):
            return found
        unfinished |= isinstance(error, RuntimeError) and any(words in said for words in _UNFINISHED)
        error = error.__cause__ or error.__context__
    return os.strerror(errno.ENOSPC) if unfinished else None


@contextmanager
def tolerating(what: str) -> Iterator[None]:
    """Go on where the disk refuses `what`, a path in the run folder; warn at the first of its kind.

    Of one kind is what lies in one folder. What is written later after all is no longer among `unwritten`.
    """
    try:
        yield
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        note(what, reason)
    else:
        _unwritten.pop(what, None)


def note(what: str, reason: str) -> None:
    """Remember that `what` is not written, and warn at the first of its kind."""
    _unwritten[what] = reason
    kind = what.partition("/")[0]
    if kind not in _told:
        _told.add(kind)
        log.warning("cannot write %s (%s); the run goes on", what, reason)


def unwritten() -> dict[str, str]:
    """What this run could not write so far, and why."""
    return dict(_unwritten)


def forget() -> None:
    """Another run begins in this process."""
    _unwritten.clear()
    _told.clear()


class GrowingFile:
    """A text file that only grows. What the disk refuses waits, and goes first once there is room: nothing is lost,
    and no line is broken into two."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = b""

    def append(self, text: str) -> None:
        """Raises OSError where a part has to wait."""
        self.waiting += text.encode()
        with open(self.path, "ab", buffering=0) as file:
            while self.waiting:
                self.waiting = self.waiting[file.write(self.waiting) :]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write beside `path` under a temporary name, sync and rename: the file is the old one or the new, never half."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def typed(path: Path) -> str:
    """`path` as one would type it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
