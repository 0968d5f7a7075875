"""Lock files that are released when their holder ends, however it ends."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from vitexp.errors import UserError

_POLL_S = 0.1
_FAR = 1 << 30  # the byte that is locked on Windows, which locks bytes instead of files


class Held(UserError):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, *, wait: bool, waiting: Callable[[str], None] | None = None) -> Iterator[int]:
    """Hold the lock file `path` and yield its descriptor, which child processes may inherit.

    The lock belongs to the descriptor: it is held until every process that inherited it has closed it or ended; on
    Windows, it belongs to this process alone. It works between machines if the file system supports flock, as NFS does.
    The file is never removed, because that would cause a race.

    waiting: called once, with a description of the holder, if the lock is not free. Raises Held, which names the
    holder, unless `wait`; OSError if the file cannot be created or locked.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not _taken(descriptor):
            if not wait:
                raise Held(f"{path.parent} is in use by {_holder(path)}; wait for it or stop it.")
            if waiting is not None:
                waiting(_holder(path))
                waiting = None
            time.sleep(_POLL_S)  # not inside flock, which only a signal would interrupt
        holder = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n"
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, holder.encode())
        yield descriptor
    finally:
        os.close(descriptor)  # no LOCK_UN: that would release it for processes that inherited it


@contextmanager
def take_turns(path: Path, *, waiting: Callable[[str], None]) -> Iterator[bool]:
    """Wait for the lock and hold it; yield False, without a lock, where none is possible, as on some network drives.

    For work that is correct without a lock too, but may then be done twice.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(path, wait=True, waiting=waiting))
            locked = True
        except OSError:
            locked = False
        yield locked


def is_held(path: Path) -> bool:
    """Return whether some process holds the lock file `path`, which is neither created nor changed.

    Raises OSError where locks are not possible.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _taken(descriptor)
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() or "another process"  # empty if it has just started


def _taken(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _FAR, os.SEEK_SET)  # others can still read the name of the holder
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the second is that of Windows
        return False
    return True
