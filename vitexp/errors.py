"""User errors: mistakes that a person can fix, reported in one sentence and without a traceback."""

from __future__ import annotations

import difflib
from importlib.util import find_spec

_LONGEST = 1000


class UserError(Exception):
    """An error whose message is one sentence: what is wrong and what to do. Ends the program with `exit_code`."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration that cannot work, found before any data is read."""


def one_line(text: str) -> str:
    """Return `text` on one printable line of at most 1,000 characters."""
    words = " ".join(text.split())
    words = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in words)
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."


def reason(error: BaseException) -> str:
    """Return the message of `error` on one line, or its type if it has no message."""
    return one_line(str(error)) or type(error).__name__


def nearest(word: str, known: list[str]) -> str:
    """Return the end of a sentence about an unknown `word`: similar known words, or all if they are few."""
    near = difflib.get_close_matches(word[:100], known, n=3, cutoff=0.5)
    if len(known) <= 12:
        hint = f"the nearest is {near[0]}; " if near else ""
        return f"{hint}choose from {', '.join(known)}."
    return f"did you mean {' or '.join(near)}?" if near else "--help lists all."


def require(package: str, *, needed_by: str, alternative: str = "") -> None:
    """Raise ConfigError if an optional package is not installed. package: its name for import."""
    if find_spec(package) is None:
        other = f", or use {alternative}" if alternative else ""
        raise ConfigError(f"{needed_by} needs one more package: pip install {package.replace('_', '-')}{other}.")


def indivisible(name: str, value: int, of: str, whole: int) -> str:
    """Return a sentence if `value` does not divide `whole`, with the divisors to choose from; "" if it does."""
    if whole % value == 0:
        return ""
    fitting = [str(divisor) for divisor in range(1, min(whole, 32) + 1) if whole % divisor == 0]
    *most, last = fitting
    return f"{name}={value} does not divide {of}={whole}; use {', '.join(most)}{' or ' if most else ''}{last}."
