"""Overrides (the key=value words after a command), and command lines to show to users. Does not import torch."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitexp.config.conf import CONF
from vitexp.system.disk import typed


def flatten(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of every leaf, as Hydra writes them: ("data.prepare.1.p", 1.0).

    node: a configuration in plain containers. Empty mappings and lists are leaves.
    """
    if isinstance(node, Mapping) and node:
        children: Iterable[tuple[Any, Any]] = node.items()
    elif isinstance(node, list | tuple) and node:
        children = enumerate(node)
    else:
        yield key, node
        return
    for name, child in children:
        yield from flatten(child, f"{key}.{name}" if key else str(name))


def key_of(override: str) -> str:
    """Return the key of an override: "model.dim" for "+model.dim=8"."""
    return override.lstrip("+~").partition("=")[0]


def config_dir_of(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the folder that `--config-dir DIR` or `--config-dir=DIR` names, and the other words."""
    others = list(words)
    for place, word in enumerate(others):
        if word == "--config-dir" and place + 1 < len(others):
            return others[place + 1], [*others[:place], *others[place + 2 :]]
        if word.startswith("--config-dir="):
            return word.partition("=")[2], [*others[:place], *others[place + 1 :]]
    return None, others


def last_of_each_key(overrides: Iterable[str]) -> tuple[str, ...]:
    """Keep the last override of each key."""
    last: dict[str, str] = {}
    for override in overrides:
        last.pop(key_of(override), None)
        last[key_of(override)] = override
    return tuple(last.values())


def merged(stored: Iterable[str], typed: Iterable[str]) -> list[str]:
    """Return the overrides of a run followed by those just typed: the last one of each key, without `resume`."""
    return [override for override in last_of_each_key([*stored, *typed]) if key_of(override) != "resume"]


# Keys whose value is a path; people type these as the shell completes them, without Hydra's quotes.
PATHS = (
    *("data.root", "data.path", "data.cache_dir", "data.source.root", "data.source.path", "log_dir", "resume"),
    *("model.weights", "training.teacher"),
)


def with_quoted_paths(words: Iterable[str], *, is_sweep: bool = False) -> list[str]:
    """Quote the paths among the words of a command that Hydra would reject or read as something else.

    is_sweep: whether an unquoted comma separates several values, as in a sweep; otherwise it belongs to the path.

    A path that Hydra reads as it is remains, and so does a value that is quoted or refers to another (${...}).
    """
    return [_with_quoted_path(word, is_sweep) for word in words]


def _with_quoted_path(word: str, is_sweep: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals or key.lstrip("+") not in PATHS or not value or "${" in value:
        return word
    if _read(word, is_sweep=is_sweep):
        return word
    if is_sweep and "," in value:
        parts = [
            part if _read(f"{key}={part}", is_sweep=False) else quoted(part)
            for part in map(str.strip, value.split(","))
        ]
        return f"{key}={','.join(parts)}"
    return f"{key}={quoted(value)}"


def _read(word: str, *, is_sweep: bool) -> bool:
    """Return whether Hydra reads the value of an override as text, or as null, or as several of these in a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser  # Hydra takes a while to import
    from hydra.errors import HydraException

    if word != word.rstrip() or word.partition("=")[2].startswith(" "):  # Hydra drops spaces around a value
        return False
    try:
        override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override():
            return override.value() is None or isinstance(override.value(), str)
        if not is_sweep:
            return False
        values = [
            _read(f"{override.get_key_element()}={value}", is_sweep=False) for value in override.sweep_string_iterator()
        ]
    except (HydraException, NotImplementedError):  # the latter for interval(), which only some searches understand
        return False
    return all(values)


def quoted(text: str) -> str:
    """Quote `text` so that Hydra reads it back unchanged; without quotes a hash such as 5e92 would be a number."""
    doubled = re.sub(r'(\\+)(?="|$)', r"\1\1", text)  # elsewhere a backslash is literal
    return '"' + doubled.replace('"', '\\"') + '"'


def setting(key: str, value: Path | str) -> str:
    """Return the override that sets `key` to a text, which is quoted if Hydra would read it as something else."""
    from hydra.core.override_parser.overrides_parser import OverridesParser  # Hydra takes a while to import
    from hydra.errors import HydraException

    plain = f"{key}={value}"
    try:
        override = OverridesParser.create().parse_override(plain)
        is_text = not override.is_sweep_override() and override.value() == str(value)
    except HydraException:
        is_text = False
    return plain if is_text else f"{key}={quoted(str(value))}"


def command_line(command: str, *words: str) -> str:
    """Return the line that runs a command of vitexp: `python train.py ...` in a clone, otherwise `vitexp train ...`."""
    clone = CONF.parent
    script = clone / f"{command}.py"
    if not (clone / "train.py").is_file() or clone not in (Path.cwd(), Path(sys.argv[0]).resolve().parent):
        start = ["vitexp", command]
    elif script.is_file():
        start = ["python", typed(script)]
    else:
        start = ["python", "-m", "vitexp", command]
    return shlex.join([*start, *words])
