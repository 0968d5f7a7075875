"""Each key is known, and has a value of its kind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vitexp.config.keys import CHECKPOINT, DATA, MODEL, TOP, TRAINER, TRAINING, VIT, Keys
from vitexp.config.kinds import FLAG, NODE, Kind, one_of, optional, shown
from vitexp.config.targets import HANDED_ON, TARGETS
from vitexp.errors import nearest

_SECTIONS = {"data": DATA, "training": TRAINING, "checkpoint": CHECKPOINT, "trainer": TRAINER}
_NODES = ("model", "augment", "loss", "optim", "schedule", "task")  # each with one _target_
_MAPPINGS = ("callbacks", "logger")  # each of several such nodes
_OF_HYDRA = optional(_recursive_=FLAG, _convert_=one_of("none", "partial", "object", "all"))


def complaints(config: Any, *, own_keys: Collection[str] = ()) -> Iterator[str]:
    """What is missing, unknown or of another kind, from the whole to its parts."""
    names = (*_SECTIONS, *_NODES, *_MAPPINGS)
    for name in names:
        if not isinstance(config.get(name), dict):
            example = f"the option {name}={shown(config.get(name))} must be one of conf/{name}"
            yield f"{name} is empty; {example}." if name in config else f"there is no {name}; say {name}=..."
    for name, keys in _SECTIONS.items():
        if name != "data":
            yield from _keys(f"{name}.", config[name], keys)
    yield from _data(config["data"])
    for name in _NODES:
        own = _of_models(config["model"]) if name == "model" else {}
        yield from _node(name, config[name], TARGETS[name], own=own, partial=name == "optim")
    for group in _MAPPINGS:
        yield from _mapping(group, config[group])
    top = {key: value for key, value in config.items() if key not in names and key not in own_keys}
    yield from _keys("", top, TOP, also=names)  # last, for the name is made of others


def _of_models(model: dict[str, Any]) -> Keys:
    """What stands beside the arguments of a model's class."""
    return VIT if model.get("_target_") == "vitexp.models.ViT" else MODEL


def _data(data: dict[str, Any]) -> Iterator[str]:
    if data.get("source") is None or data.get("name") is None:
        yield "no data set is chosen; say data=signs, for example."
    source = data["source"]
    if not NODE.accepts(source):
        yield f"data.source={shown(source)} must be {NODE.words}."
    handed_on = HANDED_ON.get(source["_target_"])
    arguments = TARGETS["data.source"].get(source["_target_"], {})
    if "root" in arguments and source.get("root") is None:
        yield f"data={data['name']} needs data.root, the folder of the images."
    extra = {key: value for key, value in data.items() if key not in DATA}
    own: dict[str, Kind] = {key: arguments[name] for key, name in (handed_on or {}).items() if key not in DATA}
    yield from _keys("data.", {key: value for key, value in data.items() if key in DATA}, DATA)
    if handed_on is not None:  # else nobody knows what the data set makes of its keys
        yield from _keys("data.", extra, own, also=tuple(DATA))
    yield from _node("data.source", source, TARGETS["data.source"])
    for key, argument in (handed_on or {}).items():
        if data[key] != source.get(argument, data[key]):
            yield (
                f"data.{key}={shown(data[key])} does not reach data.source.{argument}={shown(source[argument])}; "
                "give both the same value."
            )


def _mapping(group: str, nodes: dict[str, Any]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name, node in nodes.items():
        path = f"{group}.{name}"
        if not NODE.accepts(node):
            yield f"{path}={shown(node)} must be {NODE.words}; ~{path} leaves it away."
        if other := seen.get(node["_target_"]):
            yield f"{path} and {group}.{other} are both a {node['_target_']}; one is enough."
        seen[node["_target_"]] = name
        yield from _node(path, node, TARGETS[group])


def _node(
    path: str, node: dict[str, Any], targets: Mapping[str, Keys], *, own: Keys | None = None, partial: bool = False
) -> Iterator[str]:
    """own: keys that do not belong to the class. partial: whether its last arguments come later."""
    target = node.get("_target_")
    if not NODE.accepts(node):
        yield f"{path}._target_={shown(target)} must be the dotted name of a class."
    if node.get("_partial_", False) is not partial:
        yield f"{path}._partial_={shown(node.get('_partial_'))} must be {shown(partial)}."
    if "_args_" in node:
        yield f"{path}._args_ is not taken; name every argument."
    own = own or {}
    hydras = {key: node[key] for key in _OF_HYDRA if key in node}
    yield from _keys(f"{path}.", hydras, _OF_HYDRA)
    arguments = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    if isinstance(target, str) and target in targets:
        yield from _keys(f"{path}.", arguments, {**own, **targets[target]}, of=target)
    else:
        yield from _keys(f"{path}.", {key: arguments[key] for key in own if key in arguments}, own)


def _keys(prefix: str, node: dict[Any, Any], keys: Keys, *, also: Collection[str] = (), of: str = "") -> Iterator[str]:
    """also: further known names, for a hint. of: the class whose arguments they are."""
    for key in node:
        if key not in keys:
            known = sorted({*keys, *also})
            hint = nearest(str(key), known) if known else "it takes none."
            yield f"there is no key {f'{prefix}{shown(key)}'!r}{f' of {of}' if of else ''}; {hint}"
    for key, kind in keys.items():
        if key in node and not kind.accepts(node[key]):
            yield f"{prefix}{key}={shown(node[key])} must be {kind.words}."
        if key not in node and not kind.optional:
            yield f"{prefix}{key} is missing; it must be {kind.words}."
