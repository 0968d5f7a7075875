"""What goes into a module and comes out of it while a net runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def calls_of(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Inside, the list grows by input and output of every call of `module` that this thread makes.

    Other threads may run the same net at the same time, as those of a web app do.
    """
    calls: list[tuple[Tensor, Tensor]] = []
    mine = threading.get_ident()

    def note(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        if threading.get_ident() == mine:
            calls.append((given[0], made))

    handle = module.register_forward_hook(note)
    try:
        yield calls
    finally:
        handle.remove()
