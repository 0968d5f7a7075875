"""Lock files that are released when their holder ends, however it ends."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vitexp.errors import UserError

_POLL_S = 0.1
_FAR = 1 << 30  # the byte that is locked on Windows, which locks bytes instead of files


class Held(UserError):
    """Another process holds the lock."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, in words. has_ended: its owner was killed, and only what it forked holds the lock."""

    text: str
    has_ended: bool = False


@contextmanager
def hold(path: Path, *, wait: bool, waiting: Callable[[Holder], None] | None = None) -> Iterator[int]:
    """Hold the lock file `path` and yield its descriptor, which child processes may inherit.

    The lock belongs to the descriptor: it is held until every process that inherited it has closed it or ended; on
    Windows, it belongs to this process alone. It works between machines if the file system supports flock, as NFS does.
    The file is never removed, because that would cause a race.

    waiting: called with the holder, if the lock is not free, and again whenever it changes. It may raise an exception
    to end the wait, which is otherwise unlimited: what the holder does may take hours.

    Raises Held, which names the holder, unless `wait`; OSError if the file cannot be created or locked.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    known = None
    try:
        while not _taken(descriptor):
            holder = _holder(path)
            if not wait:
                raise Held(f"{path.parent} is in use by {holder.text}; wait for it or stop it.")
            if waiting is not None and holder != known:
                waiting(holder)
                known = holder
            time.sleep(_POLL_S)  # not inside flock, which only a signal would interrupt
        this = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n"
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, this.encode())
        yield descriptor
    finally:
        os.close(descriptor)  # no LOCK_UN: that would release it for processes that inherited it


@contextmanager
def take_turns(path: Path, *, waiting: Callable[[str], None]) -> Iterator[bool]:
    """Wait for the lock and hold it; yield False, without a lock, where none is possible, as on some network drives.

    The same if whoever did the work was killed, and a process that it had forked holds the lock. For work that is
    correct without a lock too, but may then be done twice.
    """

    said: list[str] = []

    def wait_for(holder: Holder) -> None:
        if holder.has_ended:
            raise Held(holder.text)
        if not said or holder.text.startswith(said[0]):  # another holder is only another one that waited
            said.append(holder.text)
            waiting(holder.text)

    with ExitStack() as stack:
        try:
            stack.enter_context(hold(path, wait=True, waiting=wait_for))
            locked = True
        except (OSError, Held):
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


def _holder(path: Path) -> Holder:
    words = path.read_text(encoding="utf-8").strip()
    if not (found := re.match(r"process (\d+) on (\S+) since", words)):
        return Holder("another process")  # it has just started
    if found[2] != socket.gethostname() or not Path("/proc/self/stat").exists():
        return Holder(words)
    state = _state(int(found[1]))
    if state in ("T", "t"):
        return Holder(f"{words}, which is stopped (kill -CONT {found[1]} lets it continue)")
    if state not in ("Z", "X", ""):
        return Holder(words)
    heirs = _open_in(path)
    names = " and ".join(f"process {each}" for each in heirs) or "another process"
    return Holder(f"{names}, left behind by {words}, which has ended", has_ended=bool(heirs))


def _state(process: int) -> str:
    """Return the letter of proc(5) for the state of a process, such as T for stopped; "" if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _open_in(path: Path) -> list[int]:
    """Return the other processes of this user, or for root all, that have the file open."""
    file, found = path.stat(), set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # another user's, or closed
            if os.path.samestat(link.stat(), file):
                found.add(int(link.parts[2]))
    return sorted(found - {os.getpid()})


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
