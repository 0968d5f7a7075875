"""Refuse configurations that contain a secret, because the run folder would store it."""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vitexp.config.overrides import flatten, key_of
from vitexp.errors import ConfigError

_KEY = re.compile(r"(^|_)(api_?key|access_?key|private_?key|key|token|secret|password|passwd|credentials?)$", re.I)
# https://token@host, any://user:password@host; but not ssh://git@host
_URL = re.compile(r"https?://[^/@\s]+@|://[^/@\s:]*:[^/@\s]+@", re.I)
_SHORTEST = 8  # shorter values occur by chance


def refuse_typed_secrets(arguments: Iterable[str]) -> None:
    """Raise ConfigError for the first key=value word that contains a secret, because a multirun would store it."""
    _refuse((key_of(argument), argument.partition("=")[2]) for argument in arguments)


def refuse_secrets(config: Any) -> None:
    """Raise ConfigError for the first value that is a secret, including one inserted by ${oc.env:...}.

    config: the resolved configuration in plain containers.
    """
    _refuse(flatten(config))


def _refuse(settings: Iterable[tuple[str, Any]]) -> None:
    known = list(_known())
    for key, value in settings:
        if not isinstance(value, str) or value.lower() in ("", "null", "true", "false"):
            continue
        source = next((where for where, secret in known if secret in value), None)
        name = re.sub(r"(\.\d+)+$", "", key).rpartition(".")[2]  # the name of a list, not the index of its item
        named_like_one = _KEY.search(name) and not value.startswith("${")  # resolved later
        if source or named_like_one or _URL.search(value):
            found = f"contains the secret in {source}" if source else "seems to contain a secret"
            raise ConfigError(
                f"{key} {found}, which anyone with access to the run folder could read; keep secrets in the "
                "environment (WANDB_API_KEY, for example) or in ~/.netrc."
            )


def _known() -> Iterator[tuple[str, str]]:
    """Yield the secrets of environment variables and .netrc, each preceded by a description of where it was found."""
    for name, value in os.environ.items():
        if _KEY.search(name) and len(value) >= _SHORTEST and not value.startswith("/"):  # a path is not secret
            yield f"the environment variable {name}", value
    try:
        hosts = netrc.netrc(os.environ.get("NETRC") or str(Path.home() / ".netrc")).hosts
    except (OSError, RuntimeError, netrc.NetrcParseError, UnicodeDecodeError):
        return
    for host, (_, _, password) in hosts.items():
        if password and len(password) >= _SHORTEST:
            yield f".netrc for {host}", password
