"""Compose configurations from conf/ and from folders that the user adds, and explain what cannot be composed."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vitexp.config.conf import CONF
from vitexp.config.files import load_file, option_file
from vitexp.config.overrides import command_line, config_dir_of, flatten, key_of, merged, quoted, with_quoted_paths
from vitexp.config.renames import upgrade_overrides
from vitexp.config.suggest import likely_keys
from vitexp.errors import ConfigError, nearest
from vitexp.text import shortened

# The last four come from files that cannot be read.
COMPOSING_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, OSError, UnicodeDecodeError, RecursionError)
_OF_SWEEPS = ("ablation", "search", "engine")  # groups of conf/sweep.yaml


def compose(
    overrides: Sequence[str],
    *,
    config_name: str = "train",
    config_dir: Path | str | None = None,
    searchpath: Sequence[str] = (),
) -> DictConfig:
    """Return the configuration of `vitexp train OVERRIDES`, not yet checked and without Hydra's own node.

    config_dir: a folder of additional options, laid out like conf/; the same as `--config-dir`. searchpath: URLs of
    more such folders, see `user_searchpath`.

    Raises ConfigError if they cannot be composed.
    """
    if config_dir is not None and not Path(config_dir).expanduser().is_dir():
        raise ConfigError(f"config_dir={config_dir} is not a folder.")
    refuse_missing_searchpath(overrides)
    urls = [*searchpath, *([] if config_dir is None else [f"file://{Path(config_dir).expanduser().absolute()}"])]
    try:
        return _composed([*with_quoted_paths(overrides), *searchpath_override(urls)], config_name)
    except COMPOSING_ERRORS as error:
        words = overrides if config_dir is None else [f"--config-dir={config_dir}", *overrides]
        raise ConfigError(explain(error, words)) from error


def _composed(overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose(config_name, list(overrides))


class Composer:
    """Compose many configurations that differ in a few values; Hydra composes once for each selection of options.

    searchpath: see `compose`.
    """

    def __init__(self, searchpath: Sequence[str] = ()) -> None:
        self.searchpath, self._composed = searchpath, dict[tuple[str, ...], _Composed]()

    def compose(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return what the function `compose` returns, resolved, in plain containers. Raises ConfigError like it."""
        keyed = {key_of(override): override for override in overrides}
        if len(keyed) < len(overrides):
            return plain_of(compose(overrides, searchpath=self.searchpath))
        parsed = {key: _value(override) for key, override in keyed.items()}
        values = {
            key: value
            for key, value in parsed.items()
            if value and not any(_overlap(key, other) for other in keyed if "." in other and other != key)
        }
        while True:
            others = tuple(override for key, override in keyed.items() if key not in values)
            try:
                if others not in self._composed:
                    self._composed[others] = _Composed(compose(others, searchpath=self.searchpath))
            except ConfigError:  # perhaps a value is missing here that the overrides give
                return plain_of(compose(overrides, searchpath=self.searchpath))
            found = self._composed[others]
            if all(map(found.is_free, values)):
                return found.with_values({key: value.value() for key, value in values.items()})
            values = {key: value for key, value in values.items() if found.is_free(key)}


class _Composed:
    """A configuration, to be changed in some keys."""

    def __init__(self, config: DictConfig) -> None:
        self.pickled = pickle.dumps(plain_of(config))
        leaves = dict(flatten(OmegaConf.to_container(config)))
        texts = [text for text in leaves.values() if isinstance(text, str) and "${" in text]
        self.leaves = {key for key, value in leaves.items() if not isinstance(value, dict | list)}
        self.references = {name for text in texts for name in re.findall(r"\$\{([^{}:]*)\}", text)}
        # Relative references and resolvers may depend on any key, except on the environment.
        self.is_plain = not any(re.search(r"\$\{(\.|(?!oc\.env:)[^{}]*:|[^}]*\$)", text) for text in texts)

    def is_free(self, key: str) -> bool:
        """Return whether `key` has a value, not a mapping or list, on which no other one depends."""
        in_list = any(part.isdigit() for part in key.split("."))
        return (
            self.is_plain
            and key in self.leaves
            and not in_list
            and not any(_overlap(key, name) for name in self.references)
        )

    def with_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the resolved configuration with other values."""
        plain: dict[str, Any] = pickle.loads(self.pickled)  # noqa: S301 - a copy
        for key, value in values.items():
            *parents, last = key.split(".")
            reduce(dict.__getitem__, parents, plain)[last] = value
        return plain


@cache
def _value(override: str) -> Override | None:
    """Return `override`, parsed, if it sets a dotted key, or seed, to a number, true, false, null or plain text."""
    key = key_of(override)
    if not override.startswith(f"{key}=") or key.startswith("hydra.") or (key != "seed" and "." not in key):
        return None
    try:
        parsed: Override = OverridesParser.create().parse_override(override)
    except HydraException:
        return None  # Hydra will explain it
    value = parsed.value()
    is_plain = value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and "${" not in value)
    return parsed if is_plain and value != "???" else None


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def plain_of(config: DictConfig) -> dict[str, Any]:
    """Return a configuration in plain containers, resolved. Raises ConfigError for a value that cannot be resolved."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(explain_value(error)) from error


def user_searchpath() -> list[str]:
    """Return URLs of the folders passed to the running Hydra command by --config-dir and hydra.searchpath."""
    return [
        f"{source.schema}://{source.path}"
        for source in HydraConfig.get().runtime.config_sources
        if source.provider not in ("hydra", "main", "schema")
    ]


def given_options() -> list[str]:
    """Return the words of the running Hydra command that say where its configuration comes from, other than conf/."""
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    others = [url for url in user_searchpath() if url.partition("://")[2] not in folders]
    name = str(hydra.job.config_name)
    named = [] if name in ("train", "sweep") else ["--config-name", name]
    return [*(word for folder in folders for word in ("--config-dir", folder)), *named, *searchpath_override(others)]


def searchpath_override(urls: Sequence[str]) -> list[str]:
    """Return a list with the override that adds folders to a command; an empty list if there are none."""
    return [f"hydra.searchpath=[{','.join(map(quoted, urls))}]"] if urls else []


def explain(error: Exception, words: Sequence[str]) -> str:
    """Return one sentence for an error of Hydra or OmegaConf, with the nearest known names.

    words: the overrides, and possibly --config-dir, that could not be composed.
    """
    message = str(error).strip() or str(error.__cause__).strip()
    first_line = message.partition("\n")[0].rstrip(".")
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return _unreadable(words) or f"the configuration cannot be composed: {first_line}."
    is_missing, is_unread = isinstance(error, MissingConfigException), isinstance(error, OverrideParseException)
    if (is_missing or is_unread) and (sentence := _folder_as_data(words)):
        return sentence
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        folder = config_dir_of(words)[0]
        hint = "" if folder else " --config-dir adds options of your own."
        if folder and (misplaced := Path(folder).expanduser() / f"{option}.yaml").is_file():
            hint = f" {misplaced} must be in the folder {group}."
        return f"{group} has no option {option!r}; {nearest(option, list(error.options))}{hint}"
    if isinstance(error, OverrideParseException):
        key, equals, value = str(error.override).partition("=")
        files = [file for file in sorted(CONF.glob("*/*.yaml")) if file.stem == error.override]
        examples = [f"{file.parent.name}={file.stem}" for file in files]
        if equals and value and re.fullmatch(r"[+~]*[\w./@-]+", key):
            examples = [shlex.quote(f"{key}={quoted(value)}")]
        how = "" if files else " with quotes around unusual values"
        example = f"{',' if how and examples else ''} such as {' or '.join(examples)}" if examples else ""
        return f"cannot read {error.override!r}: write key=value,{how}{example}."
    if match := re.match(r"Could not append [^']*already at '([^']+)'", first_line):
        return f"key {match.group(1)!r} already exists; drop the leading '+'."
    if match := re.match(r"Could not (?:override|append|delete)[^']*'([^']*)'", first_line):
        key = match.group(1).partition("@")[0]
        if (CONF / key).is_dir() and (sentence := _option_for_a_run(key, words)):
            return sentence
        if key in _OF_SWEEPS:
            return f"{key} can only be chosen for the sweep command."
        if options := _options_with(key):
            which = "one of them" if options[1:] else "it"
            return f"key {key!r} belongs to {shortened(options)}; select {which} or drop the key."
        if not key:
            return "a key is missing: write key=value."
        known = known_keys(words)
        value = next((word.partition("=")[2] for word in words if key_of(word).partition("@")[0] == key), "")
        meant = " or ".join(f"{each}={value}" for each in likely_keys(key, known))
        beside = [each for each in known if each.startswith(f"{key.partition('.')[0]}.")]
        choice = f"choose from {', '.join(beside)}." if 0 < len(beside) <= 12 else "--help lists all."
        return f"there is no key {key!r}; {f'did you mean {meant}?' if meant else choice}"
    if first_line.startswith("Error merging") and error.__cause__:  # only the cause says what is wrong
        first_line += f": {str(error.__cause__).partition(chr(10))[0].rstrip('.')}"
    return explain_value(error) if isinstance(error, OmegaConfBaseException) else f"{first_line}."


def _folder_as_data(words: Sequence[str]) -> str | None:
    """Return a sentence about a folder of images given as an option of data or without a key; None if there is none."""
    for word in config_dir_of(words)[1]:
        if word.startswith("-") or ("=" in word and key_of(word) != "data"):
            continue
        value = word.partition("=")[2].strip("'\"") if "=" in word else word
        is_option = "=" in word and (CONF / "data" / f"{value}.yaml").is_file()
        if value and not is_option and os.path.isdir(os.path.expanduser(value)):
            what = f"{word} is a folder{', not an option' if '=' in word else ''}"
            return f"{what}; for images in class folders, write {shlex.join(['data=folder', f'data.root={value}'])}."
    return None


def _option_for_a_run(key: str, words: Sequence[str]) -> str | None:
    """Return a sentence about an option of the group `key` that was given for a run's config.yaml; None without one."""
    folder, others = config_dir_of(words)
    if folder is None or not (Path(folder).expanduser() / "result.json").is_file():
        return None
    given = [word for word in others if "=" in word and not word.startswith("-")]
    option = next((word for word in given if key_of(word) == key), key)
    try:
        run = json.loads((Path(folder).expanduser() / "result.json").read_text(encoding="utf-8"))
        options, stored = list(map(str, run.get("options") or ())), upgrade_overrides(map(str, run["overrides"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        options, stored = [], []
    instead = f"change single values, such as {key}.KEY=VALUE"
    if stored and "--config-name" not in options:
        instead = f"{command_line('train', *options, *merged(stored, given))} starts this run with it"
    return f"{option} selects an option, but the config.yaml of a run has only values; {instead}."


def refuse_missing_searchpath(words: Iterable[str]) -> None:
    """Raise ConfigError if hydra.searchpath among overrides names a missing folder, which Hydra would ignore."""
    for word in words:
        if key_of(word) != "hydra.searchpath":
            continue
        try:
            urls = OverridesParser.create().parse_override(word).value()
        except HydraException:  # Hydra will explain it
            continue
        for url in urls if isinstance(urls, list) else [urls]:
            scheme, _, path = str(url).rpartition("://")
            if scheme == "pkg":
                is_there, what = _is_package(path), "package"
            else:
                is_there, what = scheme not in ("", "file") or os.path.isdir(path), "folder"
            if not is_there:
                raise ConfigError(
                    f"hydra.searchpath={url}: {what} {path} does not exist; correct it, or use --config-dir DIR."
                )


def _is_package(name: str) -> bool:
    try:
        return find_spec(name.replace("/", ".")) is not None
    except (ImportError, ValueError):  # of its parent
        return False


def _unreadable(words: Sequence[str]) -> str | None:
    """Return a sentence about the first file that cannot be read, of those selected by `words` or in --config-dir."""
    folder, overrides = config_dir_of(words)
    folders = [] if folder is None else [Path(folder).expanduser()]
    chosen = [word.partition("=") for word in overrides if "=" in word]
    files = [option_file(key, option, [f"file://{each}" for each in folders]) for key, _, option in chosen]
    files = [file for file in files if file.is_file()] + [file for each in folders for file in each.glob("**/*.yaml")]
    for file in files:
        try:
            load_file(file)
        except ConfigError as error:
            return str(error)
    return None


def explain_value(error: OmegaConfBaseException) -> str:
    """Return one sentence for a value that OmegaConf cannot resolve, with its key."""
    first_line = str(error).partition("\n")[0].rstrip(".")
    known = error.full_key is None or str(error.full_key) in first_line
    return f"{first_line}." if known else f"{error.full_key}: {first_line}."


def known_keys(words: Sequence[str]) -> list[str]:
    """Return every key, in dotted form, of the configuration with the options that `words` select; and every group."""
    groups = [folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name not in _OF_SWEEPS]
    folder, overrides = config_dir_of(words)
    urls = [] if folder is None else [f"file://{Path(folder).expanduser().absolute()}"]
    selections = [word for word in overrides if key_of(word) in groups]
    try:
        config = _composed([*selections, *searchpath_override(urls)])
    except COMPOSING_ERRORS:
        config = _composed([])
    leaves = (re.sub(r"\.\d+(\..*)?$", "", leaf) for leaf, _ in flatten(OmegaConf.to_container(config)))
    return list(dict.fromkeys((*groups, *(leaf for leaf in leaves if not leaf.endswith("._target_")))))


def _options_with(key: str) -> list[str]:
    """Return the options, such as "loss=focal", whose files contain `key`."""
    group, _, inside = key.partition(".")
    files = sorted((CONF / group).glob("*.yaml"))
    return [f"{group}={file.stem}" for file in files if inside and _contains(file, inside.split("."))]


def _contains(file: Path, keys: Sequence[str]) -> bool:
    """Return whether a configuration has a key; its interpolations may refer to keys of other files."""
    node: Any = OmegaConf.to_container(OmegaConf.load(file))
    for key in keys:
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True
