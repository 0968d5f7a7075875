"""Check a configuration before torch is imported or any data is read: every complaint is one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig

from vitexp.config.components import Option
from vitexp.config.compose import plain_of
from vitexp.config.secrets import refuse_secrets
from vitexp.errors import ConfigError


def check(config: DictConfig | dict[str, Any], *, own_keys: Mapping[str, Option] = MappingProxyType({})) -> None:
    """Raise ConfigError for the first problem found.

    config: composed, or resolved in plain containers. own_keys: top-level keys of the command that composed the
    configuration, such as schema.BENCH.
    """
    from vitexp.config import rules, validate  # here, because pydantic is slow to import

    plain = plain_of(config) if isinstance(config, DictConfig) else config
    refuse_secrets(plain)
    # Lazy, because a check may rely on earlier ones having passed.
    for complaint in chain(validate.complaints(plain, own_keys=own_keys), rules.complaints(plain)):
        raise ConfigError(complaint)


def check_keys(node: Mapping[str, Any], options: Mapping[str, Option], *, prefix: str = "") -> None:
    """Raise ConfigError for the first key of `node` that is unknown, missing or of the wrong type.

    prefix: put before the keys in messages, such as "search.".
    """
    from vitexp.config import validate

    for complaint in validate.keys(prefix, node, options):
        raise ConfigError(complaint)


def check_component(config: DictConfig, *, group: str) -> None:
    """Raise ConfigError if the component of `group` that `config` names, or one of its options, cannot work."""
    from vitexp.config import validate

    for complaint in validate.node_complaints(group, plain_of(config), group=group):
        raise ConfigError(complaint)


def check_lengths(config: DictConfig, *, train: int, val: int, test: int) -> None:
    """Raise ConfigError if the configuration does not fit these numbers of images."""
    from vitexp.config import rules

    for complaint in rules.length_complaints(plain_of(config), train=train, val=val, test=test):
        raise ConfigError(complaint)
