"""Run a command, and kill its whole process group as soon as the process that started this one ends.

    python guard.py COMMAND ...

The parent keeps the other end of stdin open and makes this process the leader of a group. Signals to the group are
left to the command, whose exit code is returned, 128 + n if signal n killed it. One guard runs for every trial; it is
a separate script that imports only os, signal and sys, so that it starts in milliseconds.
"""

import os
import signal
import sys

STOPPING = (signal.SIGINT, signal.SIGTERM)


def guarded(alive: int) -> int | None:
    """Fork: return None in the new process, and in this one, once the new one has ended, its exit code.

    alive: a descriptor; when the other end is closed, the process group is killed.
    """
    for number in STOPPING:
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which would survive exec
    # A separate process watches the parent: a Ray worker that ends kills its children, but not their children.
    if os.fork() == 0:
        while os.read(alive, 1):  # returns nothing once the other end is closed
            pass
        os.killpg(0, signal.SIGKILL)
    if (process := os.fork()) == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # Ray blocks them in everything it starts
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        return None
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if (code := guarded(0)) is None:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - passes on what it inherited: the output and the trial's lock
    sys.exit(code)
