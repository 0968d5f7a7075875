"""Worker processes that never execute the user's script.

multiprocessing's "spawn" imports the parent's `__main__` in every child. A script without `if __name__ == "__main__"`
would run again there, and wait for the cache lock that its parent holds.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any


@contextmanager
def hidden_main() -> Iterator[None]:
    """Keep processes that are spawned inside from importing `__main__`."""
    main = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: main.pop(name) for name in ("__spec__", "__file__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


def needs_main(task: Any) -> bool:
    """Return whether only a process with `__main__` can unpickle `task`, because of a class in the script."""
    try:
        return b"__main__" in pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError):  # a lambda or a local class
        return True


def start_worker() -> None:
    """Initialize a process of a pool: use one thread, and exit with the parent."""
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent is gone: the processes of a pool would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
