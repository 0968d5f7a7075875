"""Mistakes a person can mend, in one sentence and without a traceback."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

_ASKED = "HYDRA_FULL_ERROR"
_OURS = "VITEXP_PLAIN_ERRORS"


class UserError(Exception):
    """Its message is one sentence: what is wrong, and what would be right. Ends the program with `exit_code`."""

    exit_code = 2


class ConfigError(UserError):
    """The configuration cannot work; found before any data is read."""


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn a UserError, or a configuration that Hydra refuses, into one sentence on stderr and an exit code.

    With HYDRA_FULL_ERROR=1 in the environment every error keeps its traceback. Hydra itself prints errors and leaves
    with code 1 unless that variable is set, so it is set here; a second one tells child processes who set it.
    """
    if os.environ.get(_ASKED) == "1" and _OURS not in os.environ:
        yield
        return
    os.environ[_ASKED] = os.environ[_OURS] = "1"
    try:
        yield
    except UserError as error:
        _leave(str(error), error.exit_code)
    except KeyboardInterrupt:
        _leave("stopped from the keyboard before anything had begun.", 130)
    except (HydraException, OmegaConfBaseException) as error:
        _leave(_explain(error), ConfigError.exit_code)


def _leave(sentence: str, code: int) -> None:
    print(f"vitexp: {sentence}", file=sys.stderr)
    sys.exit(code)


def _explain(error: Exception) -> str:
    """One sentence for what Hydra or OmegaConf refused, with the nearest known names."""
    message = str(error).strip() or str(error.__cause__).strip()
    first_line = message.partition("\n")[0].rstrip(".")
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group} has no option {option!r}; {_nearest(option, list(error.options))}."
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: write key=value, with quotes around unusual values."
    if match := re.match(r"Could not (?:override|append|delete)[^']*'([^']+)'", first_line):
        key = match.group(1).partition("@")[0]
        return f"there is no key {key!r}; {_nearest(key, _known_keys())}."
    return f"{first_line}."


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(near) + "?" if len(known) > 12 else _choices(known, near[0])
    return _choices(known) if len(known) <= 12 else "python train.py --help lists all"


def _choices(known: list[str], nearest: str = "") -> str:
    hint = f"nearest is {nearest}; " if nearest else ""
    return f"{hint}there are {', '.join(known)}"


def _known_keys() -> list[str]:
    """Every key of the default configuration in dotted form, and every config group."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    conf = Path(__file__).parents[1] / "conf"
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("train")
    groups = [folder.name for folder in conf.iterdir() if folder.is_dir()]
    return [*groups, *_dotted(OmegaConf.to_container(config), "")]


def _dotted(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(child, f"{prefix}{key}.")
