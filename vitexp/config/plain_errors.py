"""Report user errors, and errors of Hydra and OmegaConf, as one sentence on stderr and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vitexp.config.compose import COMPOSING_ERRORS, explain
from vitexp.errors import ConfigError, UserError, one_line
from vitexp.system.output import dropping_unread_output

_FULL_ERRORS = "HYDRA_FULL_ERROR"
_OURS = "VITEXP_PLAIN_ERRORS"


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn a UserError, or a configuration that Hydra rejects, into one sentence on stderr and an exit code.

    If the user sets HYDRA_FULL_ERROR=1, every error keeps its traceback. Without that variable Hydra prints errors
    itself and exits with code 1, so it is set here; a second variable tells child processes that vitexp set it.
    Output that nobody reads is dropped.
    """
    with dropping_unread_output(), _one_sentence():
        yield


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
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
        if isinstance(error, COMPOSING_ERRORS):
            return explain(error, sys.argv[1:])
        return f"the configuration cannot be composed: {str(error).partition(chr(10))[0].rstrip('.')}."
    # compared by name, because Lightning takes seconds to import
    return str(error) if type(error).__name__ == "MisconfigurationException" else None
