"""Describe every key of a configuration: the text of --help, and the data of the key reference and the JSON Schema."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vitexp.config.components import MISSING, Option
from vitexp.config.compose import compose
from vitexp.config.conf import CONF
from vitexp.config.schema import MAPPINGS, NODES, SECTIONS
from vitexp.config.validate import as_typed, options_of_node, words

_WIDTH = 100
_LEFT = 38  # columns of key=value


@dataclass(frozen=True)
class Section:
    """Keys with a common prefix. title: "model (vitexp.models.ViT)"; values: their values in a configuration."""

    title: str
    prefix: str
    options: Mapping[str, Option]
    values: Mapping[str, Any]


def sections(config: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the described keys of a configuration in plain containers, with the options of its components."""
    yield Section("run", "", SECTIONS[""], config)
    common = {name: option for name, option in SECTIONS["data"].items() if name != "source"}  # set by the keys below
    yield Section("data", "data.", common, config["data"])
    source, _ = options_of_node("data.source", config["data"]["source"])
    own = {name: option for name, option in source.items() if name in config["data"] and name not in SECTIONS["data"]}
    yield Section(f"data ({config['data']['source']['_target_']})", "data.", own, config["data"])
    for name in filter(lambda name: name not in ("", "data"), SECTIONS):
        yield Section(name, f"{name}.", SECTIONS[name], config[name])
    nodes = {name: config[name] for name in NODES}
    nodes |= {f"{group}.{name}": node for group in MAPPINGS for name, node in config[group].items()}
    for name, node in nodes.items():
        yield section_of_node(name, node)


def section_of_node(name: str, node: Mapping[str, Any]) -> Section:
    """Return the described options of the component that a node of a configuration names."""
    options, _ = options_of_node(name.partition(".")[0], node)
    described = {key: option for key, option in options.items() if key in node or option.doc}
    return Section(f"{name} ({node['_target_']})", f"{name}.", described, node)


def group_options(*folders: Path) -> dict[str, list[str]]:
    """Return the options of every group of train.yaml, default first, including those in additional `folders`."""
    defaults: dict[str, Any] = {}
    for entry in OmegaConf.load(CONF / "train.yaml").defaults:
        if isinstance(entry, Mapping):
            defaults |= {key: value for key, value in entry.items() if not str(key).startswith("override ")}
    return {group: options_of_group(group, *folders, first=default) for group, default in defaults.items()}


def options_of_group(group: str, *folders: Path, first: str | None = None) -> list[str]:
    """Return the names of the files of a config group, starting with `first`."""
    names = {file.stem for folder in (CONF, *folders) for file in (folder / group).glob("*.yaml")}
    return sorted(names, key=lambda name: (name != first, name))


def train_help(usage: str, overrides: Sequence[str] = (), *, config_dir: str | None = None) -> str:
    """Return the text of `train --help`. overrides: select the options whose keys are described."""
    config: Any = OmegaConf.to_container(compose(overrides, config_dir=config_dir))
    folders = [] if config_dir is None else [Path(config_dir).expanduser()]
    return help_text(usage, groups=group_options(*folders), sections=sections(config))


def help_text(usage: str, *, groups: Mapping[str, Sequence[str]], sections: Iterable[Section]) -> str:
    """Return the text of --help: the groups with their options, and each key with its value, meaning and bounds."""
    lines = [usage.strip()]
    if groups:
        lines += ["", "Groups: group=option, default first"]
        lines += [_columns(f"  {group}", ", ".join(names), left=14) for group, names in groups.items()]
    lines += ["", "Keys: key=value, shown with their current values (+key=value if no file in conf/ has the key)"]
    for section in sections:
        lines += ["", section.title] if section.options else []
        for key, option in section.options.items():
            value = section.values.get(key, option.default)
            plus = " " if key in section.values else "+"
            lines.append(_columns(f" {plus}{section.prefix}{key}={format_option(value)}", meaning(option), left=_LEFT))
    return "\n".join(lines)


def format_option(value: Any) -> str:
    """Return a short form of a configuration value."""
    if value is MISSING:
        return "???"
    if isinstance(value, Mapping) and value:
        return f"{{_target_:{value['_target_']},...}}" if "_target_" in value else "{...}"
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return f"[{','.join(map(format_option, value))}]"
    return as_typed(value)


def meaning(option: Option) -> str:
    """Return what an option means, followed by what it accepts in parentheses unless the text names all choices."""
    kind = "" if option.type is Any else words(option.type)
    if not option.doc or not kind:
        return option.doc or kind
    choices = re.split(r", or |, | or ", kind)
    is_said = kind == option.doc or all(re.search(rf"(?<!\w){re.escape(each)}(?!\w)", option.doc) for each in choices)
    return option.doc if is_said else f"{option.doc} ({kind})"


def _columns(left_text: str, right_text: str, *, left: int) -> str:
    """Return two columns, the right one wrapped; a long left text gets its own line."""
    wrapped = textwrap.wrap(right_text, _WIDTH - left, break_on_hyphens=False)
    if len(left_text) >= left:
        return "\n".join([left_text[:_WIDTH], *(" " * left + line for line in wrapped)])
    first, *others = wrapped or [""]
    return "\n".join([f"{left_text:<{left}}{first}".rstrip(), *(" " * left + line for line in others)])
