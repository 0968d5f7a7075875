"""Locks whose owner was killed or stopped: nobody waits without knowing for whom."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from vitexp.system.lock import Held, hold, take_turns

# Takes the lock and forks a child that inherits it, as a loader's worker does; prints both.
OWNER = """
import os, sys, time
from pathlib import Path
from vitexp.system.lock import hold
with hold(Path(sys.argv[1]), wait=False):
    if sys.argv[2] == "fork" and (child := os.fork()) == 0:
        time.sleep(60)
    print(child if sys.argv[2] == "fork" else 0, flush=True)
    time.sleep(60)
"""


@contextmanager
def owner(path: Path, *, forks: bool) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a process that holds the lock, and the child that inherited it."""
    command = [sys.executable, "-c", OWNER, str(path), "fork" if forks else "alone"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            process.kill()
            with suppress(ProcessLookupError):
                os.kill(child or process.pid, signal.SIGKILL)


def test_a_child_that_inherited_the_lock_of_a_killed_owner_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with owner(path, forks=True) as (process, child):
        named = f"in use by process {process.pid} on {socket.gethostname()} since [^,]*; wait for it or stop it"
        with pytest.raises(Held, match=named), hold(path, wait=False):
            pass
        process.kill()
        process.wait()
        left = f"in use by process {child}, left behind by process {process.pid} on .*, which has ended; wait for it"
        with pytest.raises(Held, match=left), hold(path, wait=False):
            pass
        os.kill(child, signal.SIGKILL)
        with hold(path, wait=True):
            pass


def test_work_whose_owner_was_killed_does_not_wait_for_its_child(tmp_path: Path) -> None:
    path, waits, alone = tmp_path / "lock", list[str](), list[bool]()

    def work() -> None:
        with take_turns(path, waiting=waits.append) as is_alone:
            alone.append(is_alone)

    with owner(path, forks=True) as (process, _):
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(0.5)
        assert worker.is_alive()  # as long as the owner works
        process.kill()
        process.wait()
        worker.join(10)
        assert alone == [False]
        assert len(waits) == 1


def test_a_stopped_owner_is_named_with_the_way_to_wake_it(tmp_path: Path) -> None:
    path, waits = tmp_path / "lock", list[str]()

    def work() -> None:
        with take_turns(path, waiting=waits.append):
            pass

    with owner(path, forks=False) as (process, _):
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(0.5)
        process.send_signal(signal.SIGSTOP)
        worker.join(0.5)
        assert "stopped" not in waits[0]
        assert f"which is stopped (kill -CONT {process.pid} lets it continue)" in waits[-1]
        process.kill()
        worker.join(10)
        assert not worker.is_alive()
