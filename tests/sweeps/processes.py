"""List processes, for tests that must leave none."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def with_argument(text: str) -> list[int]:
    """Return the processes with an argument that contains `text`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            if text.encode() in arguments:
                found.append(int(folder.name))
    return found


def of_session(leader: int) -> list[int]:
    """Return the processes of the session of `leader`, without those that opened their own."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:  # it has ended
                continue
            state, _, _, session = stat.rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(folder.name))
    return found


def until(holds: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait until `holds()`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.02)
