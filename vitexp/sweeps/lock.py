"""Lock files that are free again when their holder is gone, however it died."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from vitexp.errors import UserError

LOCK = "trial.lock"  # in a trial's folder: held by whoever runs the trial, and by its process
_POLL_S = 0.1


class Held(UserError):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, *, wait: bool) -> Iterator[int]:
    """Hold the lock file `path`; the descriptor, which child processes may inherit.

    The lock belongs to the descriptor: it is held until everybody who inherited it has closed it or is gone. It holds
    between machines too where the file system passes flock on, as NFS does.

    Raises Held, which says by whom, unless `wait`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not _taken(descriptor):
            if not wait:
                raise Held(f"{path.parent} is in use by {path.read_text().strip()}; wait for it, or stop it.")
            time.sleep(_POLL_S)  # rather than inside flock, which nothing but a signal would interrupt
        os.ftruncate(descriptor, 0)
        holder = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n"
        os.pwrite(descriptor, holder.encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)  # no LOCK_UN: that would free it under those who inherited it


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file `path`."""
    try:
        with hold(path, wait=False):
            return False
    except Held:
        return True


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
