"""Option files written by hand: find one, and say why it cannot be read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vitexp.config.conf import CONF
from vitexp.errors import ConfigError, reason
from vitexp.system.disk import typed


def option_file(group: str, option: str, searchpath: Iterable[str] = ()) -> Path:
    """Return the file of an option; of several, the one that Hydra reads. searchpath: see compose.user_searchpath."""
    folders = [CONF, *(Path(url.removeprefix("file://")) for url in searchpath)]
    files = [folder / group / f"{option}.yaml" for folder in folders]
    return next((file for file in files if file.exists()), files[0])


def load_file(file: Path) -> DictConfig:
    """Return the content of `file`, which may be empty. Raises ConfigError if it is not a mapping in YAML."""
    try:
        loaded = OmegaConf.load(file)
    except OSError as error:  # without a number: OmegaConf's, for a single value
        problem = _NO_MAPPING if error.errno is None else f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "is not encoded in UTF-8"
    except YAMLError as error:
        problem = f"is not valid YAML{_place(error)}"
    except RecursionError:
        problem = "contains itself through an alias"
    except OmegaConfBaseException as error:  # a value such as an incomplete interpolation
        problem = f"cannot be read: {reason(error)}"
    else:
        if isinstance(loaded, DictConfig):
            return loaded
        problem = _NO_MAPPING
    raise ConfigError(f"{typed(file)} {problem.rstrip('.')}.")


_NO_MAPPING = "must be a mapping of keys, KEY: VALUE"


def _place(error: YAMLError) -> str:
    """Return the line of a syntax error and what is wrong there."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return f": {reason(error)}"
    problem = f"{error.context}, {problem}" if problem.startswith("but ") else problem
    hint = "; indent with spaces, not tabs" if "\\t" in problem else ""
    return f" (line {mark.line + 1}): {problem}{hint}"
