"""Overrides, key=value as they are typed behind a command. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable


def last_of_each_key(overrides: Iterable[str]) -> tuple[str, ...]:
    """A later override replaces an earlier one of the same key, as a row does the base, and the command line both."""
    last: dict[str, str] = {}
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        last.pop(key, None)
        last[key] = override
    return tuple(last.values())


def merged(stored: Iterable[str], typed_now: Iterable[str]) -> list[str]:
    """Both lists of overrides, of each key the last one; without `resume`, which is no part of a run."""
    return [line for line in last_of_each_key([*stored, *typed_now]) if line.partition("=")[0].lstrip("+") != "resume"]


def quoted(text: str) -> str:
    """`text` as Hydra reads it back from an override, whatever is in it: a hash such as 5e92 would be a number."""
    doubled = re.sub(r'(\\+)(?="|$)', r"\1\1", text)  # elsewhere a backslash stands for itself
    return '"' + doubled.replace('"', '\\"') + '"'
