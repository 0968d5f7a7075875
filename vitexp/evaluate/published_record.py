"""The configuration and the record of a run as others may see them: without paths, user names and host names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from getpass import getuser
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.config.overrides import key_of
from vitexp.config.secrets import refuse_secrets
from vitexp.runs.finished import FinishedRun

# Where a run is stored and who watches it: keys that are removed with everything below them.
_LOCAL = ("log_dir", "run_id", "resume", "data.cache_dir", "hydra", "logger")
# The beginning of an absolute path, or of one that leaves the working directory.
_START = r"(?:file://|~[\w.-]*(?=[\\/])|/|[A-Za-z]:[\\/]|\\\\|\.\.[\\/])"
_WHOLE = re.compile(rf"""(?P<key>(?:[+~]*[\w.@/-]+=)?\s*)(?P<quote>["']?)(?P<path>{_START}.*|~)(?P=quote)""", re.DOTALL)
_INSIDE = re.compile(rf"""(?<![\w.:/\\~])(?:{_START}[^\s,;'"()\[\]{{}}]*|~(?=[\s,;]|$))""")
_HOMES = ("home", "users")
_CACHE = "~/.cache/vitexp"  # the default
_UNNAMED = "data"  # in place of a folder that is named after a user


def published_record(run: FinishedRun) -> tuple[DictConfig, dict[str, Any]]:
    """Return the configuration and the record of a run for publication.

    A path is replaced by its last component. Raises ConfigError if the rest contains a secret.
    """
    plain: Any = OmegaConf.to_container(run.config, resolve=True)
    local: dict[str, Any] = {"log_dir": "logs", "run_id": None, "resume": None, "logger": {}}
    plain = without_paths({**plain, **local, "data": {**plain["data"], "cache_dir": ""}})
    plain["data"]["cache_dir"] = _CACHE
    result = without_paths(
        {
            **run.result,
            "overrides": _shared(run.result.get("overrides") or ()),
            "data": {**(run.result.get("data") or {}), "unread": ""},  # names of files
            "environment": {**(run.result.get("environment") or {}), "hostname": None},
        }
    )
    refuse_secrets({"config": plain, "result": result})
    return OmegaConf.create(plain), result


def _shared(overrides: Iterable[str]) -> list[str]:
    """Return the overrides that mean the same on another machine."""
    keys = [(key_of(word), word) for word in overrides]
    return [word for key, word in keys if not any(key == each or key.startswith(f"{each}.") for each in _LOCAL)]


def without_paths(value: Any) -> Any:
    """Return `value`, plain containers, with every path in its texts replaced by its last component.

    Absolute paths are replaced, and those that start with `..` or `~`; a folder named after a user becomes "data".
    """
    if isinstance(value, dict):
        return {key: without_paths(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(each) for each in value]
    if not isinstance(value, str):
        return value
    if whole := _WHOLE.fullmatch(value):
        return f"{whole['key']}{whole['quote']}{_last(whole['path'])}{whole['quote']}"
    # A home folder may contain spaces, which end a path within a text.
    return _INSIDE.sub(lambda found: _last(found[0]), value.replace(str(Path.home()), "~"))


def _last(path: str) -> str:
    parts = [part for part in re.split(r"[\\/]+", path.removeprefix("file://")) if part not in ("", ".", "..")]
    names_user = not parts or parts[-1] in (_user(), Path.home().name) or parts[-1].startswith("~")
    return _UNNAMED if names_user or (len(parts) > 1 and parts[-2].lower() in _HOMES) else parts[-1]


def _user() -> str:
    try:
        return getuser()
    except (OSError, KeyError):  # an account without a name, as in some containers
        return ""
