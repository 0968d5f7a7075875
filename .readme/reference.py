"""Write the key reference, .readme/reference.md, and the JSON Schema of experiment files, conf/schema.json.

    python .readme/reference.py

Both come from the annotations in vitexp/config/schema.py and in the constructors of the components. With the schema,
editors complete and check an experiment file that starts with the line (path relative to the file)

    # yaml-language-server: $schema=../schema.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import TypeAdapter

from vitexp.commands.sweep import described as sweep_keys
from vitexp.config.components import MISSING, Option
from vitexp.config.compose import compose
from vitexp.config.conf import CONF
from vitexp.config.reference import Section, format_option, group_options, options_of_group, sections
from vitexp.config.schema import MAPPINGS, NODES
from vitexp.config.validate import words

ROOT = Path(__file__).parents[1]
COMPONENTS = (*NODES, *MAPPINGS, "data")

HEADER = """# Configuration keys

Every key can be set on the command line, `key=value`, and in an experiment file; every group is chosen by
`group=option`. `python train.py --help` prints the same for the options it is given. Editors with a YAML
language server complete and check an experiment file that starts with `# yaml-language-server: $schema=../schema.json`.

Written by `python .readme/reference.py` from the annotations in `vitexp/config/schema.py` and the constructors.
"""


def described() -> dict[str, Section]:
    """Return the keys of every section and of every class that an option names, by title."""
    found: dict[str, Section] = {}
    for group, options in group_options().items():
        for option in options if group in COMPONENTS else ():
            config: Any = OmegaConf.to_container(compose([f"{group}={option}"]))
            for section in sections(config):
                if section.title.startswith(group) or group == "augment":  # keys without a class: any option has them
                    found.setdefault(section.title, section)
    order = [_group(section.title) for section in sections(config)]
    return dict(sorted(found.items(), key=lambda item: order.index(_group(item[0]))))


def _group(title: str) -> str:
    """Return "callbacks" for "callbacks.curves (vitexp...)"."""
    return re.split(r"[ .]", title)[0]


def markdown() -> str:
    lines = [HEADER, "## Groups\n"]
    for group, options in group_options().items():
        lines += [f"**{group}**\n"]
        lines += [f"- `{group}={option}`: {_summary(CONF / group / f'{option}.yaml')}" for option in options]
        lines.append("")
    lines.append("## Keys\n")
    for title, section in described().items():
        lines += _table(title, section)
    lines += ["## Sweeps\n", "Keys of `python sweep.py`, and of the files that it reads.\n"]
    for group in ("ablation", "search", "engine"):
        lines += [f"**{group}**\n"]
        lines += [f"- `{group}={name}`: {_summary(CONF / group / f'{name}.yaml')}" for name in options_of_group(group)]
        lines.append("")
    for section in sweep_keys(*options_of_group("engine", first="ray")):
        lines += _table(section.title, section)
    return "\n".join(lines)


def _table(title: str, section: Section) -> list[str]:
    if not section.options:
        return []
    head = [f"### {title}\n", "| key | value | meaning | accepts |", "|---|---|---|---|"]
    return [*head, *(_row(section, key, option) for key, option in section.options.items()), ""]


def _row(section: Section, key: str, option: Option) -> str:
    value = format_option(section.values.get(key, option.default))
    accepts = "" if option.type is Any else words(option.type)
    cells = f"`{section.prefix}{key}`", f"`{value}`", option.doc, accepts
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _summary(file: Path) -> str:
    """Return the first sentence of the comment that a file starts with."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    text = " ".join(line.removeprefix("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")])
    return re.split(r"(?<=[^.][.:])\s+(?=[A-Z]|python|$)", text)[0]


def json_schema() -> dict[str, Any]:
    choices = {f"override /{group}": {"enum": options} for group, options in group_options().items()}
    properties: dict[str, Any] = {
        "defaults": {"type": "array", "items": {"anyOf": [{"type": "string"}, _object(choices, is_open=True)]}}
    }
    for title, section in described().items():
        group, _, name = title.partition(" ")[0].partition(".")
        keys = {key: _value(section, key, option) for key, option in section.options.items()}
        if group == "run":
            properties |= keys
            continue
        node = properties.setdefault(group, _object({}, is_open=group in COMPONENTS and group != "data"))
        if name:
            node = node["properties"].setdefault(name, _object({}, is_open=True))
        for key, value in keys.items():  # a key of several classes accepts what any of them accepts
            known = node["properties"].setdefault(key, value)
            if known is not value and value["anyOf"][0] not in known["anyOf"]:
                known["anyOf"].insert(0, value["anyOf"][0])
    properties["data"]["properties"]["source"] = {"type": "object"}
    title = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "a vitexp experiment"}
    return title | _object(properties, is_open=False)


def _object(properties: Mapping[str, Any], *, is_open: bool) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": is_open}


def _value(section: Section, key: str, option: Option) -> dict[str, Any]:
    kind = {} if option.type is Any else _as_draft_7(TypeAdapter(option.type).json_schema())
    schema: dict[str, Any] = {"anyOf": [kind, {"type": "string", "pattern": r"\$\{"}]}  # or an interpolation
    if option.doc:
        schema["description"] = option.doc
    if (default := section.values.get(key, option.default)) is not MISSING:
        schema["default"] = default
    return schema


def _as_draft_7(node: Any) -> Any:
    """Rename the keyword for tuples to its name in draft 7, which editors support."""
    if isinstance(node, list):
        return [_as_draft_7(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {("items" if key == "prefixItems" else key): _as_draft_7(value) for key, value in node.items()}


def files() -> Iterator[tuple[Path, str]]:
    """Yield each file that this script writes and its text."""
    yield ROOT / ".readme" / "reference.md", markdown()
    yield CONF / "schema.json", json.dumps(json_schema(), indent=1) + "\n"


if __name__ == "__main__":
    for path, text in files():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
