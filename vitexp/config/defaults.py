"""What a key stands for that a configuration does not have. Imports no torch.

A run keeps its meaning when vitexp gets a new key: a configuration written before then is complete with the key's
default. Defaults of sections (data, training, checkpoint, trainer) are those of conf/, and defaults of components those
of the constructor, which is also what a component gets that was built from an earlier configuration. A default that is
changed later, or that did not keep the behavior, needs an entry in `renames.FORMER_DEFAULTS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from vitexp.config.components import MISSING
from vitexp.config.renames import FORMER_DEFAULTS, section_defaults

_Default = tuple[str, Any, str]  # the name of an argument, its default, and the default in JSON


def with_defaults(plain: dict[str, Any]) -> dict[str, Any]:
    """Add every absent key that has a default to `plain`, a configuration in plain containers, and return it."""
    for node, (key, default, _) in _pairs(plain):
        node.setdefault(key, default)
    return plain


def without_defaults(plain: dict[str, Any]) -> dict[str, Any]:
    """Remove every key of `plain` that has its default, and return it; the rest determines the configuration."""
    for node, (key, _, as_json) in _pairs(plain):
        if key in node and json.dumps(node[key], sort_keys=True) == as_json:  # as JSON, because 1 is not 1.0 or true
            del node[key]
    return plain


def _pairs(plain: dict[str, Any]) -> Iterator[tuple[dict[str, Any], _Default]]:
    """Yield each mapping in `plain` that may have keys with defaults, with each of these."""
    from vitexp.config.schema import MAPPINGS, NODES  # pydantic takes a while to import

    data, sections = plain.get("data", {}), _of_sections()
    nodes = [(group, plain.get(group)) for group in NODES]
    nodes += [(group, node) for group in MAPPINGS for node in (plain.get(group) or {}).values()]
    nodes.append(("data.source", data.get("source")))
    for group, node in nodes:
        if not isinstance(node, dict):
            continue
        defaults = _of_component(group, str(node.get("_target_")))
        yield from ((node, default) for default in defaults)
        if group == "data.source":  # data.KEY is handed on to it
            own = {key for key, *_ in sections["data"]}
            yield from ((data, default) for default in defaults if default[0] not in own)
    for name, defaults in sections.items():
        if isinstance(section := plain.get(name), dict):
            yield from ((section, default) for default in defaults)


@cache
def _of_sections() -> Mapping[str, tuple[_Default, ...]]:
    return {name: tuple(_defaults(section)) for name, section in section_defaults().items()}


@cache
def _of_component(group: str, target: str) -> tuple[_Default, ...]:
    from vitexp.config.validate import options_of_node

    options, _ = options_of_node(group, {"_target_": target})
    defaults = {name: option.default for name, option in options.items() if option.default is not MISSING}
    former = {name: FORMER_DEFAULTS[f"{target}.{name}"] for name in defaults if f"{target}.{name}" in FORMER_DEFAULTS}
    return tuple(_defaults(defaults | former))


def _defaults(values: Mapping[str, Any]) -> Iterator[_Default]:
    for name, value in values.items():
        try:
            as_json = json.dumps(value, sort_keys=True)
        except (TypeError, ValueError):  # no configuration contains such a value
            continue
        yield name, json.loads(as_json), as_json
