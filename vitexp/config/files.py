"""Option files written by hand: find one, and say why it cannot be read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from vitexp.config.conf import CONF
from vitexp.errors import reason


def option_file(group: str, option: str, searchpath: Iterable[str] = ()) -> Path:
    """Return the file of an option; of several, the one that Hydra reads. searchpath: see compose.user_searchpath."""
    folders = [CONF, *(Path(url.removeprefix("file://")) for url in searchpath)]
    files = [folder / group / f"{option}.yaml" for folder in folders]
    return next((file for file in files if file.exists()), files[0])


def problem_of(file: Path) -> str:
    """Return why `file` is not a mapping in YAML, to complete "FILE ..."; "" if it is one, or is empty."""
    try:
        is_mapping = isinstance(OmegaConf.load(file), DictConfig)
    except OSError as error:
        if error.errno is None:  # OmegaConf's, for a single value
            return _NO_MAPPING
        return f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return "is not encoded in UTF-8"
    except YAMLError as error:
        return f"is not valid YAML{_place(error)}"
    except RecursionError:
        return "contains itself through an alias"
    except Exception as error:  # of OmegaConf, for a value such as an invalid interpolation
        return f"cannot be read: {reason(error)}"
    return "" if is_mapping else _NO_MAPPING


_NO_MAPPING = "must be a mapping of keys, KEY: VALUE"


def _place(error: YAMLError) -> str:
    """Return the line of a syntax error and what is wrong there."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return f": {reason(error)}"
    problem = f"{error.context}, {problem}" if problem.startswith("but ") else problem
    hint = "; indent with spaces, not tabs" if "\\t" in problem else ""
    return f" (line {mark.line + 1}): {problem}{hint}"
