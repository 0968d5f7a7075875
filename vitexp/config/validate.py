"""Check that each key of a configuration is known and has a value of the right type."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from vitexp.config.components import MISSING, Option, component, not_importable
from vitexp.config.overrides import flatten
from vitexp.config.schema import COMMON, CONTRACTS, GIVEN, MAPPINGS, NODES, OF_FACTS, REQUIRED, SECTIONS, USUAL
from vitexp.errors import nearest
from vitexp.options import Node, Words, is_dotted

_SHOWN = 60  # characters of a value in a message
_OF_HYDRA = ("_target_", "_recursive_", "_convert_")
_NOUNS = {int: "an integer", float: "a number", str: "a string", list: "a list", Sequence: "a list", dict: "a mapping"}
_COUNTS = {2: "two", 3: "three"}
_LIMITS = {
    "ge": " of {} or more",
    "gt": " above {}",
    "le": ", at most {}",
    "lt": ", below {}",
    "multiple_of": ", a multiple of {}",
}

Options = Mapping[str, Option]


def complaints(config: Mapping[str, Any], *, own_keys: Mapping[str, Option]) -> Iterator[str]:
    """Yield a sentence for each key that is missing, unknown or of the wrong type.

    Later checks rely on earlier ones, so stop at the first sentence. own_keys: top-level keys of the command that
    composed the configuration.
    """
    names = (*filter(None, SECTIONS), *NODES, *MAPPINGS)
    for name in names:
        if not isinstance(config.get(name), dict):
            example = f"choose an option of conf/{name}"
            yield f"{name} is empty; {example}." if name in config else f"{name} is missing; set {name}=..."
    for name in filter(None, SECTIONS):
        if name != "data":
            yield from keys(f"{name}.", config[name], SECTIONS[name])
    yield from _data(config["data"])
    for name in NODES:
        yield from node_complaints(name, config[name], group=name)
    for name in MAPPINGS:
        yield from _mapping(name, config[name])
    for key, target in flatten(config):  # of parts that are passed on as they are, such as transforms
        if key.endswith("._target_") and (reason := not_importable(str(target))):
            yield f"{key}={target} cannot be imported: {reason}."
    top = {key: value for key, value in config.items() if key not in names}
    yield from keys("", top, {**SECTIONS[""], **own_keys}, also=names)  # last: `name` interpolates other keys


def options_of_node(group: str, node: Mapping[str, Any]) -> tuple[Options, bool]:
    """Return the options of the component that `node` names, and whether it accepts other options."""
    common = dict(COMMON.get(group, {}))
    found = component(str(node.get("_target_")))
    if found is None:
        return common, True
    for fact, read_by_run in OF_FACTS.items() if group == "model" else ():
        common |= read_by_run if found.facts.get(fact) else {}
    own = {name: option for name, option in found.options.items() if name not in GIVEN.get(group, ())}
    for name, usual in USUAL.get(group, {}).items():
        if name in own and not own[name].doc:
            own[name] = replace(usual, default=own[name].default)
    described = {name: option for name, option in own.items() if option.doc or name not in common}
    return {**common, **described}, found.is_open


def accepts(kind: Any, value: Any) -> bool:
    """Return whether a value of a configuration has the type `kind`. Strict: true is not 1, and NaN is not accepted."""
    try:
        _adapter(kind).validate_json(json.dumps(value), strict=True)
    except (ValidationError, ValueError, TypeError, RecursionError):
        return False
    return not isinstance(value, str) or (value.isprintable() and _is_encodable(value))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))


def words(kind: Any) -> str:
    """Return a description of the values that `kind` accepts, to complete "... must be"."""
    metadata: list[Any] = []
    while get_origin(kind) is Annotated:
        kind, *outer = get_args(kind)
        metadata = [*outer, *metadata]
    if found := next((each.text for each in reversed(metadata) if isinstance(each, Words)), None):
        return found
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return listed([as_typed(each) for each in arguments])
    if origin in (Union, UnionType):
        return _alternatives(arguments)
    if kind in (None, NoneType):
        return "null"
    if kind is bool:
        return "true or false"
    if origin is tuple:
        return f"{_COUNTS.get(len(arguments), len(arguments))} values, each {words(arguments[0])}"
    if origin in (list, Sequence):
        return f"a list of values, each {words(arguments[0])}"
    if origin is dict:
        return _NOUNS[dict]
    bounds = [bound for each in metadata if isinstance(each, FieldInfo) for bound in each.metadata]
    limits = {name: getattr(bound, name) for bound in bounds for name in _LIMITS if hasattr(bound, name)}
    return _with_limits(kind, limits)


def _with_limits(kind: Any, limits: Mapping[str, Any]) -> str:
    """Return "a number of 0 or more, below 1", for example."""
    text = _NOUNS.get(kind, "a valid value")
    if kind is float and limits in ({"ge": 0, "le": 1}, {"gt": 0, "lt": 1}):
        return f"{text} between 0 and 1" + (", exclusive" if "gt" in limits else "")
    for key, template in _LIMITS.items():
        if key in limits:
            bound = limits[key]
            text += template.format(f"{bound:,.0f}" if bound == int(bound) else f"{bound:g}")
    return text


def _alternatives(kinds: Collection[Any]) -> str:
    """Return the description of a union, with null last."""
    parts = [words(kind) for kind in kinds if kind is not NoneType]
    return ", or ".join([*parts, *(["null"] if NoneType in kinds else [])])


def as_typed(value: Any) -> str:
    """Return a value as a user would type it: on one line, shortened if it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = str(value)
    except ValueError:  # Python does not print integers with thousands of digits
        return "a very large number"
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def listed(items: list[str], word: str = "or") -> str:
    """Return "a, b or c"."""
    *most, last = items
    return f"{', '.join(most)} {word} {last}" if most else last


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    if data.get("source") is None or data.get("name") is None:
        yield "no data set is selected; use data=signs, for example."
    section, source = SECTIONS["data"], data["source"]
    if not accepts(Node, source):
        yield f"data.source={as_typed(source)} must be {words(Node)}."
    options, is_open = options_of_node("data.source", source)
    for key, what in (("root", "the folder of the images"), ("path", "a folder, or the name of a data set on the Hub")):
        if key in options and options[key].default is MISSING and source.get(key) is None:
            yield f"data={data['name']} needs data.{key}, {what}."
    yield from keys("data.", {key: value for key, value in data.items() if key in section}, section)
    extra = {key: value for key, value in data.items() if key not in section}
    handed_on = {name: option for name, option in options.items() if name not in section}
    yield from keys("data.", extra, handed_on, also=tuple(section), is_open=is_open, partial=True)
    yield from node_complaints("data.source", source, group="data.source")
    for key in options:
        if key in data and key in source and data[key] != source[key]:
            yield (
                f"data.{key}={as_typed(data[key])} differs from data.source.{key}={as_typed(source[key])}; "
                "give both the same value."
            )


def _mapping(group: str, nodes: Mapping[str, Any]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name, node in nodes.items():
        path = f"{group}.{name}"
        if not accepts(Node, node):
            yield f"{path}={as_typed(node)} must be {words(Node)}; ~{path} removes it."
        if other := seen.get(node["_target_"]):
            yield f"{path} and {group}.{other} both use {node['_target_']}; remove one."
        seen[node["_target_"]] = name
        yield from node_complaints(path, node, group=group)


def node_complaints(path: str, node: Mapping[str, Any], *, group: str) -> Iterator[str]:
    """Yield a sentence for each problem with the component that `node` names and with its options."""
    target = node.get("_target_")
    if not is_dotted(target):
        yield f"{path}._target_={as_typed(target)} must be the dotted name of a class."
    if reason := not_importable(str(target)):
        yield f"{path}._target_={target} cannot be imported: {reason}; it must be {CONTRACTS[group]}."
    found = component(str(target))
    if found is not None and not found.is_open and (lacking := sorted(REQUIRED.get(group, set()) - set(found.options))):
        yield f"{path}._target_={target} does not take {listed(lacking, 'and')}; it must be {CONTRACTS[group]}."
    if "_args_" in node:
        yield f"{path}._args_ is not supported; pass every argument by name."
    of_hydra = (*_OF_HYDRA, "_partial_") if group == "optim" else _OF_HYDRA
    options, is_open = options_of_node(group, node)
    arguments = {key: value for key, value in node.items() if key not in of_hydra}
    yield from keys(f"{path}.", arguments, options, of=str(target), is_open=is_open)


def keys(
    prefix: str,
    node: Mapping[Any, Any],
    options: Options,
    *,
    also: Collection[str] = (),
    of: str = "",
    is_open: bool = False,
    partial: bool = False,
) -> Iterator[str]:
    """Yield a sentence for each key of a mapping that is unknown, missing or of the wrong type.

    also: more known names for the hint. of: the class that has the options. is_open: whether unknown keys are
    allowed. partial: whether required options may be missing.
    """
    for key in node:
        if key not in options and not is_open:
            known = sorted({*options, *also})
            hint = nearest(str(key), known) if known else "this class takes no options."
            yield f"there is no key {f'{prefix}{as_typed(key)}'!r}{f' of {of}' if of else ''}; {hint}"
    for key, option in options.items():
        if key in node and not accepts(option.type, node[key]):
            yield f"{prefix}{key}={as_typed(node[key])} must be {words(option.type)}."
        if key not in node and option.default is MISSING and not partial:
            must = "" if option.type is Any else f"; it must be {words(option.type)}"
            yield f"{prefix}{key} is missing{must}."


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
