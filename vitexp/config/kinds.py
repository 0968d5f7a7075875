"""Kinds of values: which ones a key takes, and the words that say so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

_SHOWN = 60  # letters of a value that a sentence repeats


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The values that a key takes. `words` go on the sentence "... must be"; an optional key may be missing."""

    words: str
    accepts: Callable[[Any], bool]
    optional: bool = False

    def __or__(self, other: Kind) -> Kind:
        return Kind(
            words=f"{self.words}, or {other.words}", accepts=lambda value: self.accepts(value) or other.accepts(value)
        )


def optional(**kinds: Kind) -> dict[str, Kind]:
    """The same kinds, of keys that may be missing."""
    return {key: replace(kind, optional=True) for key, kind in kinds.items()}


def integer(low: int, high: int, words: str = "") -> Kind:
    """An integer from `low` to `high`; true and false are none."""
    return Kind(
        words=words or f"an integer of {low} or more, at most {high:,}",
        accepts=lambda value: is_int(value) and low <= value <= high,
    )


def number(low: float, high: float, words: str = "", *, above: bool = False, below: bool = False) -> Kind:
    """A finite number from `low` to `high`, with `above` and `below` these bounds themselves excluded."""
    lower = f"above {low:,g}" if above else f"at least {low:,g}"
    upper = f"below {high:,g}" if below else f"at most {high:,g}"

    def accepts(value: Any) -> bool:
        if not is_number(value) or not low <= value <= high:
            return False
        return not (above and value == low) and not (below and value == high)

    return Kind(words=words or f"a number, {lower} and {upper}", accepts=accepts)


def one_of(*choices: str | int | None, words: str = "") -> Kind:
    """One of a few values, of the same type: 1 is not true."""
    return Kind(
        words=words or _listed([shown(choice) for choice in choices]),
        accepts=lambda value: any(type(value) is type(choice) and value == choice for choice in choices),
    )


def text(words: str = "a text", *, pattern: str = r"[^\x00-\x1f\x7f]+") -> Kind:
    """A string that `pattern` matches as a whole, and that a file can hold; by default one visible line."""
    return Kind(
        words=words,
        accepts=lambda value: (
            isinstance(value, str) and bool(re.fullmatch(pattern, value)) and value.isprintable() and _encodable(value)
        ),
    )


def pair(kind: Kind, *, rising: bool = False) -> Kind:
    """[low, high], each of `kind`."""
    return Kind(
        words=f"a range of two numbers, [low, high], each {kind.words}" if rising else f"two values, each {kind.words}",
        accepts=lambda value: (
            isinstance(value, list)
            and len(value) == 2
            and all(map(kind.accepts, value))
            and (not rising or value[0] <= value[1])
        ),
    )


def list_of(kind: Kind, words: str, *, least: int = 0) -> Kind:
    """A list of values of one kind."""
    return Kind(
        words=words,
        accepts=lambda value: isinstance(value, list) and len(value) >= least and all(map(kind.accepts, value)),
    )


NULL = Kind(words="null", accepts=lambda value: value is None)
FLAG = Kind(words="true or false", accepts=lambda value: isinstance(value, bool))
NODE = Kind(
    words="a mapping with _target_, the dotted name of a class",
    accepts=lambda value: isinstance(value, Mapping) and is_dotted(value.get("_target_")),
)


def is_dotted(value: Any) -> bool:
    """Whether a value is the dotted name of something in a module."""
    return isinstance(value, str) and bool(re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", value))


def is_int(value: Any) -> bool:
    """An integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """A finite number; true and false are none."""
    return is_int(value) or (isinstance(value, float) and math.isfinite(value))


def shown(value: Any) -> str:
    """A value as one would type it, on one line and not too long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        words = str(value)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        return "a very large number"
    words = words if words.isprintable() else repr(words)
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."


def _listed(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
