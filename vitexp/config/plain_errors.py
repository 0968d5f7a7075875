"""Report user errors, and errors of Hydra and OmegaConf, as one sentence on stderr and an exit code."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from itertools import accumulate

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vitexp.config.components import MISSING
from vitexp.config.conf import CONF
from vitexp.config.overrides import config_dir_of, flatten, key_of
from vitexp.errors import ConfigError, UserError, nearest, one_line

_FULL_ERRORS = "HYDRA_FULL_ERROR"
_OURS = "VITEXP_PLAIN_ERRORS"


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn a UserError, or a configuration that Hydra rejects, into one sentence on stderr and an exit code.

    If the user sets HYDRA_FULL_ERROR=1, every error keeps its traceback. Without that variable Hydra prints errors
    itself and exits with code 1, so it is set here; a second variable tells child processes that vitexp set it.
    """
    if os.environ.get(_FULL_ERRORS) == "1" and _OURS not in os.environ:
        yield
        return
    os.environ[_FULL_ERRORS] = os.environ[_OURS] = "1"
    try:
        yield
    except UserError as error:
        _leave(str(error), error.exit_code)
    except KeyboardInterrupt:
        _leave("stopped from the keyboard before anything started.", 130)
    except (HydraException, OmegaConfBaseException) as error:
        _leave(explain(error, sys.argv[1:]), ConfigError.exit_code)
    except Exception as error:
        if (sentence := _of_libraries(error)) is None:
            raise
        _leave(sentence, ConfigError.exit_code)


def _leave(sentence: str, code: int) -> None:
    print(f"vitexp: {one_line(sentence)}", file=sys.stderr)
    sys.exit(code)


def _of_libraries(error: Exception) -> str | None:
    """Return one sentence for a library error that the user can fix; None for any other error."""
    in_hydra = [
        frame.name for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}hydra{os.sep}" in frame.filename
    ]
    if in_hydra and "run_job" not in in_hydra:  # before our code was called
        return f"the configuration cannot be composed: {str(error).partition(chr(10))[0].rstrip('.')}."
    # compared by name, because Lightning takes seconds to import
    return str(error) if type(error).__name__ == "MisconfigurationException" else None


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
    from vitexp.config.compose import compose

    groups = [folder.name for folder in CONF.iterdir() if folder.is_dir()]
    folder, overrides = config_dir_of(words)
    selections = [word for word in overrides if key_of(word) in groups]
    keys = list(groups)
    for leaf, _ in flatten(OmegaConf.to_container(compose(selections, config_dir=folder))):
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
