"""Compose configurations from conf/ and from folders that the user adds, and explain what cannot be composed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vitexp.config.components import MISSING
from vitexp.config.conf import CONF
from vitexp.config.overrides import config_dir_of, flatten, key_of, quoted
from vitexp.errors import ConfigError, nearest


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
    urls = [*searchpath, *([] if config_dir is None else [f"file://{Path(config_dir).expanduser().absolute()}"])]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra_compose(config_name, [*overrides, *searchpath_override(urls)])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides)) from error


def user_searchpath() -> list[str]:
    """Return URLs of the folders passed to the running Hydra command by --config-dir and hydra.searchpath."""
    return [
        f"{source.schema}://{source.path}"
        for source in HydraConfig.get().runtime.config_sources
        if source.provider not in ("hydra", "main", "schema")
    ]


def searchpath_override(urls: Sequence[str]) -> list[str]:
    """Return a list with the override that adds folders to a command; an empty list if there are none."""
    return [f"hydra.searchpath=[{','.join(map(quoted, urls))}]"] if urls else []


def explain(error: Exception, words: Sequence[str]) -> str:
    """Return one sentence for an error of Hydra or OmegaConf, with the nearest known names.

    words: the overrides, and possibly --config-dir, that could not be composed.
    """
    message = str(error).strip() or str(error.__cause__).strip()
    first_line = message.partition("\n")[0].rstrip(".")
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        hint = "" if config_dir_of(words)[0] else " --config-dir adds options of your own."
        return f"{group} has no option {option!r}; {nearest(option, list(error.options))}{hint}"
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: write key=value, with quotes around unusual values."
    if match := re.match(r"Could not append [^']*already at '([^']+)'", first_line):
        return f"key {match.group(1)!r} already exists; drop the leading '+'."
    if match := re.match(r"Could not (?:override|append|delete)[^']*'([^']*)'", first_line):
        key = match.group(1).partition("@")[0]
        known = _known_keys(words)
        if others := _options_with(key):
            which = "one of them" if others[1:] else "it"
            return f"key {key!r} belongs to {' and '.join(others)}; select {which} or drop the key."
        return f"there is no key {key!r}; {nearest(key, known)}" if key else "a key is missing: write key=value."
    if first_line.startswith("Error merging") and error.__cause__:  # only the cause says what is wrong
        first_line += f": {str(error.__cause__).partition(chr(10))[0].rstrip('.')}"
    return explain_value(error) if isinstance(error, OmegaConfBaseException) else f"{first_line}."


def explain_value(error: OmegaConfBaseException) -> str:
    """Return one sentence for a value that OmegaConf cannot resolve, with its key."""
    first_line = str(error).partition("\n")[0].rstrip(".")
    known = error.full_key is None or str(error.full_key) in first_line
    return f"{first_line}." if known else f"{error.full_key}: {first_line}."


def _known_keys(words: Sequence[str]) -> list[str]:
    """Return every key, in dotted form, of the configuration with the options that `words` select; and every group."""
    groups = [folder.name for folder in CONF.iterdir() if folder.is_dir()]
    folder, overrides = config_dir_of(words)
    selections = [word for word in overrides if key_of(word) in groups]
    try:
        config = compose(selections, config_dir=folder)
    except ConfigError:
        config = compose([])
    keys = list(groups)
    for leaf, _ in flatten(OmegaConf.to_container(config)):
        keys += accumulate(leaf.split("."), "{}.{}".format)
    return list(dict.fromkeys(keys))


def _options_with(key: str) -> list[str]:
    """Return the options, such as "loss=focal", whose files contain `key`."""
    group, _, inside = key.partition(".")
    files = sorted((CONF / group).glob("*.yaml"))
    return [
        f"{group}={file.stem}"
        for file in files
        if inside and OmegaConf.select(OmegaConf.load(file), inside, default=MISSING) is not MISSING
    ]
