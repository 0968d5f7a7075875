"""No secret is written down: whoever types one, or leads one in from the environment, is told where it belongs."""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitexp.errors import ConfigError

_KEY = re.compile(r"(^|_)(api_?key|access_?key|private_?key|key|token|secret|password|passwd|credentials?)$", re.I)
# https://token@host, any://user:password@host; but ssh://git@host tells nothing
_URL = re.compile(r"https?://[^/@\s]+@|://[^/@\s:]*:[^/@\s]+@", re.I)
_SHORTEST = 8  # a shorter value would be found in what is no secret


def refuse_typed_secrets(arguments: Iterable[str]) -> None:
    """Raise ConfigError for the first key=value of a command line that carries a secret: -m would write it down."""
    typed = (argument.lstrip("+~").partition("=") for argument in arguments)
    _refuse((key, value) for key, _, value in typed)


def refuse_secrets(config: Any) -> None:
    """Raise ConfigError for the first value that is a secret. config: the resolved configuration, in plain containers.

    Run folder, log and report show all of it; what is taken from the environment by ${oc.env:...} too.
    """
    _refuse(_leaves(config, ""))


def _refuse(settings: Iterable[tuple[str, Any]]) -> None:
    known = list(_known())
    for key, value in settings:
        if not isinstance(value, str) or value.lower() in ("", "null", "true", "false"):
            continue
        source = next((where for where, secret in known if secret in value), None)
        named_like_one = _KEY.search(key.rpartition(".")[2]) and not value.startswith("${")  # resolved later
        if source or named_like_one or _URL.search(value):
            found = f"holds what {source} keeps secret" if source else "seems to hold a secret"
            raise ConfigError(
                f"{key} {found}, and everybody who sees the run folder could read it; leave secrets to the environment "
                "(WANDB_API_KEY, for example) or to ~/.netrc."
            )


def _known() -> Iterator[tuple[str, str]]:
    """Secrets at hand and where they are kept: variables that are named like one, passwords of .netrc."""
    for name, value in os.environ.items():
        if _KEY.search(name) and len(value) >= _SHORTEST and not value.startswith("/"):  # a path leads to a secret
            yield f"the environment variable {name}", value
    try:
        hosts = netrc.netrc(os.environ.get("NETRC") or str(Path.home() / ".netrc")).hosts
    except (OSError, RuntimeError, netrc.NetrcParseError, UnicodeDecodeError):
        return
    for host, (_, _, password) in hosts.items():
        if password and len(password) >= _SHORTEST:
            yield f".netrc for {host}", password


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _leaves(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for child in node:
            yield from _leaves(child, key)
    else:
        yield key, node
