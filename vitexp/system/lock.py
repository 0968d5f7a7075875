"""Lock files that are free again when their holder is gone, however it died."""

from __future__ import annotations

import errno
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


class Held(UserError):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, *, wait: bool, waiting: Callable[[str], None] | None = None) -> Iterator[int]:
    """Hold the lock file `path`; the descriptor, which child processes may inherit.

    The lock belongs to the descriptor: it is held until everybody who inherited it has closed it or is gone. It holds
    between machines too where the file system passes flock on, as NFS does. The file stays: removing it would race.

    waiting: called once, with words for the holder, where it is not free at once.
    Raises Held, which says by whom, unless `wait`; OSError where the file cannot be made or locked.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not _taken(descriptor):
            if not wait:
                raise Held(f"{path.parent} is in use by {_holder(path)}; wait for it, or stop it.")
            if waiting is not None:
                waiting(_holder(path))
                waiting = None
            time.sleep(_POLL_S)  # rather than inside flock, which nothing but a signal would interrupt
        os.ftruncate(descriptor, 0)
        holder = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n"
        os.pwrite(descriptor, holder.encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)  # no LOCK_UN: that would free it under those who inherited it


@contextmanager
def take_turns(path: Path, *, waiting: Callable[[str], None]) -> Iterator[bool]:
    """As hold, waiting; False, and no lock, where there can be none, as on some network drives.

    For work that comes out right without a lock too, only done twice.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(path, wait=True, waiting=waiting))
            locked = True
        except OSError:
            locked = False
        yield locked


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file `path`."""
    try:
        with hold(path, wait=False):
            return False
    except Held:
        return True


def _holder(path: Path) -> str:
    return path.read_text().strip() or "another process"  # nothing where it has just begun


def _taken(descriptor: int) -> bool:
    if sys.platform == "win32":
        raise OSError(errno.ENOLCK, "there is no flock")
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
