"""A cache of folders that are created once, atomically, and verified before use.

Each entry has an entry.json with the SHA-256 of its other files. It is filled under a temporary name and renamed, so
that a crash leaves no partial entry. A damaged entry is moved away, never overwritten, because other processes may have
its files mapped. A lock file lets one process create an entry while the others wait.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vitexp.data.source import DataError, printable
from vitexp.system.disk import checksum
from vitexp.system.lock import take_turns

log = logging.getLogger(__name__)

MANIFEST = "entry.json"


def ensure(entry: Path, fill: Callable[[Path], None], *, files: Sequence[str], what: str) -> None:
    """Make sure that the folder `entry` exists with undamaged `files`; otherwise `fill` an empty folder with them.

    what: name of the content, for a message while another process creates it.

    A damaged entry is rebuilt, with a warning. Raises DataError if the cache cannot be read or written, and any
    exception that `fill` raises, except OSError.
    """
    with _cache_errors(entry.parent):
        if _flaw(entry, files) is None:
            return
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = entry.with_name(f".{entry.name}.lock")
        message = "waiting for %s, which is preparing %s"
        with take_turns(lock, waiting=lambda who: log.info(message, who, what)) as alone:
            if alone:
                _remove_leftovers(entry)
            flaw = _flaw(entry, files)  # again: another process may have been here
            if flaw is None:
                return
            if os.path.lexists(entry):
                log.warning("the prepared images in %s are damaged (%s); preparing them again", entry, flaw)
                _remove(entry)
            _build(entry, fill, files)
            if flaw := _flaw(entry, files):
                raise DataError(f"the cache entry {entry} is damaged right after writing ({flaw}); check the disk.")


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise DataError(
            f"cannot cache the prepared images in {folder}: {error.strerror or error}; "
            f"{'free some space, or ' if full else ''}set data.cache_dir to another folder."
        ) from error


def _flaw(entry: Path, files: Sequence[str]) -> str | None:
    """Return what is wrong with an entry; None if it is undamaged. Raises PermissionError."""
    try:
        # Compare the bytes, not the parsed JSON, so that no byte of the entry can change unnoticed.
        return None if (entry / MANIFEST).read_bytes() == _manifest(entry, files) else "a checksum differs"
    except PermissionError:  # another user's entry: perhaps undamaged, and not ours to replace
        raise
    except OSError as error:
        return f"{printable(error.filename)}: {error.strerror}" if error.filename else str(error)


def _manifest(folder: Path, files: Sequence[str]) -> bytes:
    return json.dumps({file: checksum(folder / file) for file in files}, indent=1).encode()


def _build(entry: Path, fill: Callable[[Path], None], files: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix=_prefix(entry), dir=entry.parent, ignore_cleanup_errors=True) as building:
        fill(Path(building))
        Path(building, MANIFEST).write_bytes(_manifest(Path(building), files))
        os.chmod(building, 0o755)  # noqa: S103 - others may share the cache
        try:
            os.rename(building, entry)
        except OSError:
            if not entry.exists():  # else another process was faster, where locks do not work
                raise


def _remove(entry: Path) -> None:
    """Remove a file or folder atomically; processes that have it open keep it."""
    with tempfile.TemporaryDirectory(prefix=_prefix(entry), dir=entry.parent, ignore_cleanup_errors=True) as trash:
        os.rename(entry, Path(trash, entry.name))


def _remove_leftovers(entry: Path) -> None:
    """Remove the temporary folders of processes that died while creating or removing the entry."""
    for left in entry.parent.iterdir():
        if left.name.startswith(_prefix(entry)):
            shutil.rmtree(left, ignore_errors=True)


def _prefix(entry: Path) -> str:
    return f".{entry.name}-"
