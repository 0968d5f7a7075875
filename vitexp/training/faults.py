"""Loggers that never end a run: the first failure of one is reported and turns it off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import Logger

from vitexp.errors import reason

log = logging.getLogger(__name__)

_METHODS = ("log_metrics", "log_hyperparams", "log_graph", "log_image", "save", "finalize", "after_save_checkpoint")


@contextmanager
def turning_off(logger: Logger) -> Iterator[None]:
    """Turn `logger` off if the block raises an exception."""
    try:
        yield
    except Exception as error:  # any: there may be a service or a network on the other side
        turn_off(logger, error)


def turn_off(logger: Logger, error: Exception) -> None:
    """Stop using `logger`, with a warning that says why, unless it is off already."""
    if not is_on(logger):
        return
    name = getattr(logger, "title", type(logger).__name__)
    logger._turned_off = True  # type: ignore[attr-defined]
    log.warning("%s is turned off (%s); the run continues", name, reason(error))
    log.debug("%s failed", name, exc_info=error)


def is_on(logger: Logger) -> bool:
    """Return whether `logger` has not failed yet."""
    return not getattr(logger, "_turned_off", False)


def harmless(logger: Logger) -> Logger:
    """Return the same logger, of a subclass of its class whose methods turn it off instead of raising exceptions."""
    kind: Any = type(logger)
    guarded: dict[str, Any] = {name: _guarded(getattr(kind, name)) for name in _METHODS if hasattr(kind, name)}
    if hasattr(kind, "experiment"):
        guarded["experiment"] = property(_guarded_experiment(kind.experiment.__get__))
    logger.__class__ = type(kind.__name__, (kind,), {"__slots__": (), **guarded})
    return logger


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Logger, *arguments: Any, **options: Any) -> Any:
        if is_on(self):
            with turning_off(self):
                return method(self, *arguments, **options)
        return None

    return call


def _guarded_experiment(get: Callable[[Logger], Any]) -> Callable[[Logger], Any]:
    """Guard the logger's own object, such as a W&B run; once it is turned off, there is one that accepts every call."""

    def experiment(self: Logger) -> Any:
        if is_on(self):
            try:
                return get(self)
            except AttributeError:  # Lightning tests with hasattr
                raise
            except Exception as error:
                turn_off(self, error)
        return Nothing()

    return experiment


class Nothing:
    """An object that accepts every call."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *arguments: Any, **options: Any) -> Nothing:
        return self
