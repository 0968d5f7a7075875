"""Multiruns, `python train.py -m ...`: several runs started by Hydra's launchers. Does not import torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from vitexp.config.overrides import command_line
from vitexp.config.plain_errors import plain_errors
from vitexp.errors import ConfigError, UserError
from vitexp.system.cores import visible_gpus


class JobFailed(UserError):
    """The failure of a run in a multirun; its own message has been printed."""

    exit_code = 1


def is_multirun() -> bool:
    """Return whether this run is one of several that Hydra starts."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def one_run() -> Iterator[None]:
    """Print the message of a UserError and end the program; in a multirun, end only this run."""
    if not is_multirun():
        with plain_errors():
            yield
        return
    try:
        yield
    except UserError as error:
        job = HydraConfig.get().job
        print(f"vitexp: run {job.num} ({job.override_dirname or 'no overrides'}): {error}", file=sys.stderr)
        raise JobFailed("some runs were not completed; their errors are printed above.") from error


def refuse_several_devices(config: DictConfig) -> None:
    """Raise ConfigError if each run of a multirun uses several devices; the message names a command that works.

    Lightning starts the command again for every device, which would repeat the whole multirun.
    """
    devices, nodes = config.trainer.devices, config.trainer.num_nodes
    if is_multirun() and (nodes > 1 or _may_be_several(devices)):
        words = (argument for argument in sys.argv[1:] if argument not in ("-m", "--multirun"))
        sweep = command_line("sweep", *words, "engine.gpus_per_trial=N")
        raise ConfigError(
            f"a multirun cannot use several devices per run (trainer.devices={devices}); use {sweep} "
            "instead, where N is the number of devices per run."
        )


def place_on_gpu(config: DictConfig) -> None:
    """Give each job of a multirun whose launcher runs several at a time a GPU, in turn; otherwise all would use one.

    A process that runs several jobs, as joblib's do, keeps its first GPU, because CUDA cannot change it later.
    """
    if not is_multirun() or config.trainer.accelerator == "cpu":
        return
    if HydraConfig.get().launcher._target_.endswith(".BasicLauncher"):  # one job after the other
        return
    if len(gpus := visible_gpus()) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[HydraConfig.get().job.num % len(gpus)]


def _may_be_several(devices: Any) -> bool:
    if isinstance(devices, int):
        return devices not in (0, 1)
    if isinstance(devices, str):  # auto, "2", "0,1"
        return devices != "1"
    return len(devices) > 1
