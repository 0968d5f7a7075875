"""A cache of folders, each made once: whole or not there, and proven whole before it is used.

entry.json of an entry holds the SHA-256 of its other files. It is filled under a temporary name and renamed, so that a
crash leaves no half entry; what is damaged is moved away whole, never written into, so that processes which have its
files mapped go on. A lock file beside the entry lets one process make it while the others wait.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vitexp.data.source import DataError, printable
from vitexp.system.lock import take_turns

log = logging.getLogger(__name__)

MANIFEST = "entry.json"


def ensure(entry: Path, fill: Callable[[Path], None], *, files: Sequence[str], what: str) -> None:
    """Have the folder `entry`, with `files` as they were written. It is made by `fill`, which gets an empty folder.

    `what` is for people who wait for another process that makes it. A damaged entry is made anew, with a warning.
    Raises DataError where the cache cannot be read or written, and what `fill` raises but OSError.
    """
    with _cache_errors(entry.parent):
        if _flaw(entry, files) is None:
            return
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = entry.with_name(f".{entry.name}.lock")
        told = "waiting for %s, which is preparing %s"
        with take_turns(lock, waiting=lambda who: log.info(told, who, what)) as alone:
            if alone:
                _remove_leftovers(entry)
            flaw = _flaw(entry, files)  # again: another process may have been here
            if flaw is None:
                return
            if os.path.lexists(entry):
                log.warning("The prepared images in %s are damaged (%s); they are made anew.", entry, flaw)
                _remove(entry)
            _build(entry, fill, files)
            if flaw := _flaw(entry, files):
                raise DataError(f"the cache entry {entry} was written and reads back damaged ({flaw}); check the disk.")


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise DataError(
            f"cannot keep the prepared images in {folder}: {error.strerror or error}; "
            f"{'make room, or ' if full else ''}set data.cache_dir to another folder."
        ) from error


def _flaw(entry: Path, files: Sequence[str]) -> str | None:
    """What is wrong with an entry; None where it is whole. Raises PermissionError."""
    try:
        told = (entry / MANIFEST).read_bytes()
        # The very bytes, not what they mean: then no byte of the entry can change unnoticed.
        return None if told == _manifest(entry, files) else "a checksum differs"
    except PermissionError:  # somebody else's: whole perhaps, and not ours to replace
        raise
    except OSError as error:
        return f"{printable(error.filename)}: {error.strerror}" if error.filename else str(error)


def _manifest(folder: Path, files: Sequence[str]) -> bytes:
    return json.dumps({file: _checksum(folder / file) for file in files}, indent=1).encode()


def _checksum(path: Path) -> str:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return checksum.hexdigest()


def _build(entry: Path, fill: Callable[[Path], None], files: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix=_prefix(entry), dir=entry.parent, ignore_cleanup_errors=True) as building:
        fill(Path(building))
        Path(building, MANIFEST).write_bytes(_manifest(Path(building), files))
        os.chmod(building, 0o755)  # noqa: S103 - others may share the cache
        try:
            os.rename(building, entry)
        except OSError:
            if not entry.exists():  # else, without a lock, another process was faster, with the same content
                raise


def _remove(entry: Path) -> None:
    """Whatever is there, file or folder; at once for everybody who looks, and whole for those who have it open."""
    with tempfile.TemporaryDirectory(prefix=_prefix(entry), dir=entry.parent, ignore_cleanup_errors=True) as trash:
        os.rename(entry, Path(trash, entry.name))


def _remove_leftovers(entry: Path) -> None:
    """Folders in which somebody was making or removing the entry and died: nobody else is at it now."""
    for left in entry.parent.iterdir():
        if left.name.startswith(_prefix(entry)):
            shutil.rmtree(left, ignore_errors=True)


def _prefix(entry: Path) -> str:
    return f".{entry.name}-"
