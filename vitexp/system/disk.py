"""Files and full disks: keep training when the disk is full, and report what was not written. Imports no torch."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitexp.errors import UserError

log = logging.getLogger(__name__)

# No space, no quota, file too large, I/O error, and read-only after an error.
_REFUSALS = tuple(os.strerror(each) for each in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS))
# Messages of torch.save about a file that it could not finish; they do not give the reason.
_UNFINISHED = ("PytorchStreamWriter failed writing", "inline_container.cc", "iostream error")

# State of the run in this process: what was not written and why, and the kinds of files already warned about.
_unwritten: dict[str, str] = {}
_warned: set[str] = set()


def refusal(error: BaseException | None) -> str | None:
    """Return the system's message, such as "No space left on device", if a failed write caused `error`; otherwise None.

    The message is also found in the error types of libraries such as safetensors. torch.save gives no reason; a file
    that it could not finish counts as "No space left on device".
    """
    unfinished = False
    while error is not None:
        message = (error.strerror or "") if isinstance(error, OSError) else str(error)
        if found := next((words for words in _REFUSALS if words in message), None):
            return found
        unfinished |= isinstance(error, RuntimeError) and any(words in message for words in _UNFINISHED)
        error = error.__cause__ or error.__context__
    return os.strerror(errno.ENOSPC) if unfinished else None


@contextmanager
def tolerating(what: str) -> Iterator[None]:
    """Continue if the disk refuses `what`, a path in the run folder; warn once per kind of file.

    Files in one folder are of one kind. What is written later is removed from `unwritten`.
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
    """Record that `what` was not written, and warn once per kind of file."""
    _unwritten[what] = reason
    kind = what.partition("/")[0]
    if kind not in _warned:
        _warned.add(kind)
        log.warning("cannot write %s (%s); the run continues", what, reason)


def unwritten() -> dict[str, str]:
    """Return what this run could not write so far, and why."""
    return dict(_unwritten)


def forget() -> None:
    """Forget the unwritten files, because another run starts in this process."""
    _unwritten.clear()
    _warned.clear()


class GrowingFile:
    """A text file that is only appended to.

    What the disk refuses is kept and written first once there is space, so that nothing is lost and no line is split.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = b""

    def append(self, text: str) -> None:
        """Append `text`. Raises OSError if a part has to wait."""
        self.waiting += text.encode()
        with open(self.path, "ab", buffering=0) as file:
            while self.waiting:
                self.waiting = self.waiting[file.write(self.waiting) :]


def refuse_unwritable(path: Path) -> None:
    """Raise UserError if `write_atomically` cannot create or replace the file `path`, for example a device."""
    folder = path.absolute().parent
    if path.exists() and not path.is_file():
        raise UserError(f"{typed(path)} is not a regular file; name the file to write.")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{typed(path)} cannot be written because {typed(folder)} is not a writable folder.")


def refuse_unwritable_folder(folder: Path, *, key: str) -> None:
    """Raise UserError if `folder` cannot be created, or nothing in it. key: where the user can name another."""
    with suppress(OSError):
        folder = next(part for part in (folder, *folder.parents) if part.exists())
    try:  # on some file systems, permissions do not tell
        os.rmdir(tempfile.mkdtemp(prefix=".vitexp-", dir=folder))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{key}: cannot write to {typed(folder)} ({reason}); choose another.") from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a temporary file next to `path`, sync and rename: the file is the old or the new one, never incomplete."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        replace(Path(temporary), path)
    except BaseException:
        os.unlink(temporary)
        raise


def replace(source: Path, target: Path) -> None:
    """Rename a file, replacing `target`; on Windows, wait for up to a second for others that have it open."""
    for _ in range(10 if sys.platform == "win32" else 0):
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(0.1)
    os.replace(source, target)


def checksum(path: Path, kind: str = "sha256") -> str:
    """Return the checksum of a file in hexadecimal digits. kind: an algorithm of hashlib, such as md5."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def typed(path: Path) -> str:
    """Return `path` as one would type it from the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
