"""`python train.py -m ...`: many runs by Hydra's launchers. Imports no torch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from vitexp.config.plain_errors import plain_errors
from vitexp.errors import ConfigError, UserError


class JobFailed(UserError):
    """A run of a multirun has failed; its own sentence was printed when it did."""

    exit_code = 1


def is_multirun() -> bool:
    """Whether this run is one of several that Hydra was asked for."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def one_run() -> Iterator[None]:
    """Inside, a mistake that a person can mend ends the program with its sentence; in a multirun, only this run."""
    if not is_multirun():
        with plain_errors():
            yield
        return
    try:
        yield
    except UserError as error:
        job = HydraConfig.get().job
        print(f"vitexp: run {job.num} ({job.override_dirname or 'no overrides'}): {error}", file=sys.stderr)
        raise JobFailed("not every run was completed; why not was said where each ended.") from error


def refuse_several_devices(config: DictConfig) -> None:
    """Raise ConfigError for a multirun of runs that start processes of their own, with the line that works instead.

    Lightning would start them with this same command, and so the whole multirun again.
    """
    devices, nodes = config.trainer.devices, config.trainer.num_nodes
    if is_multirun() and (nodes > 1 or _may_be_several(devices)):
        typed = shlex.join(argument for argument in sys.argv[1:] if argument not in ("-m", "--multirun"))
        raise ConfigError(
            f"train.py -m cannot give a run several devices (trainer.devices={devices}); python sweep.py {typed} "
            "engine.gpus_per_trial=N does, with N the devices of a run."
        )


def _may_be_several(devices: Any) -> bool:
    if isinstance(devices, int):
        return devices not in (0, 1)
    if isinstance(devices, str):  # auto, "2", "0,1"
        return devices != "1"
    return len(devices) > 1
