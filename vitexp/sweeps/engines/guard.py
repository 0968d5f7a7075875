"""Runs a command, and kills its whole process group as soon as whoever started it is gone, however that one died.

    python guard.py COMMAND ...

The starter keeps the other end of stdin open, and makes this process the leader of a group. Signals to the group are
left to the command; its exit code is ours, 128 + n where signal n killed it. One runs beside every trial, so it is a
script of its own on os and signal alone, which starts in milliseconds.
"""

import os
import signal
import sys

STOPPING = (signal.SIGINT, signal.SIGTERM)


def watch() -> None:
    while os.read(0, 1):  # comes back empty when nobody holds the other end any more
        pass
    os.killpg(0, signal.SIGKILL)


def become(command: list[str]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # Ray blocks them in all that it starts
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execvp(command[0], command)  # noqa: S606 - hands on what was handed to us: the output, the trial's lock


if __name__ == "__main__":
    for number in STOPPING:
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which would outlive exec
    # A process of its own watches the starter: a worker of Ray that goes down kills its children, but not theirs.
    if os.fork() == 0:
        watch()
    if (process := os.fork()) == 0:
        become(sys.argv[1:])
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    sys.exit(code if code >= 0 else 128 - code)
