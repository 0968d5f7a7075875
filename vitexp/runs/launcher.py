"""The processes of a run on several devices: which of them records, and how the others find its folder.

torchrun, srun or mpirun start all of them, with the same command. Otherwise the first process of each machine starts
the others there: see companions.py.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from omegaconf import DictConfig
from torch.distributed.rendezvous import rendezvous

from vitexp.errors import ConfigError, UserError, one_line

RUN_FOLDER = "VITEXP_RUN_FOLDER"  # set for processes that another process of the run has started
_WAIT = timedelta(minutes=10)  # for the slowest machine to start
_meetings = 0  # in this process; a script may train several times


class _Srun(SLURMEnvironment):
    """SLURM, if srun started this process; the variables of a job alone do not say so."""

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)  # our own handlers save a checkpoint; the job's script decides

    @staticmethod
    def detect() -> bool:
        return "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def cluster_environment() -> ClusterEnvironment:
    """Return what has started this process, as Lightning's Trainer needs it: a launcher, or LightningEnvironment.

    Raises ConfigError if the launcher does not say enough.
    """
    for kind in (TorchElasticEnvironment, _Srun, LSFEnvironment, MPIEnvironment):
        if kind.detect():
            try:
                return kind()
            except (RuntimeError, ValueError) as error:
                raise ConfigError(one_line(str(error))) from error
    return LightningEnvironment()


def refuse_other_number(environment: ClusterEnvironment, asked: int) -> None:
    """Raise ConfigError if a launcher has not started `asked` processes: each would train a run of its own."""
    if isinstance(environment, LightningEnvironment) or environment.world_size() == asked:
        return
    raise ConfigError(
        f"the launcher has started {environment.world_size()} processes, but trainer.devices times trainer.num_nodes "
        f"is {asked}; set trainer.devices to the number of processes per machine, trainer.num_nodes to the number of "
        "machines, and trainer.strategy=ddp."
    )


def is_first_process(config: DictConfig) -> bool:
    """Return whether this process records the run of `config`."""
    return RUN_FOLDER not in os.environ and _rank_and_size(config)[0] == 0


def _rank_and_size(config: DictConfig) -> tuple[int, int]:
    """Return the number of this process among those that meet, and how many they are."""
    environment = cluster_environment()
    if isinstance(environment, LightningEnvironment):  # one process per machine, which starts the others
        return (environment.node_rank(), nodes) if (nodes := int(config.trainer.num_nodes)) > 1 else (0, 1)
    return environment.global_rank(), environment.world_size()


class Meeting:
    """The processes that have been started for one run; the first tells the others the folder of the run."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._store: Any = None

    @classmethod
    def of(cls, config: DictConfig) -> Meeting:
        """Wait for the other processes of the run of `config`, if there are any.

        Raises ConfigError if it is unknown where they meet, and UserError if they do not all come.
        """
        global _meetings
        environment, devices = cluster_environment(), config.trainer.devices
        if isinstance(devices, int) and devices > 0:  # otherwise known only when the Trainer has found the devices
            refuse_other_number(environment, devices * config.trainer.num_nodes)
        meeting = cls(*_rank_and_size(config))
        if meeting.size == 1:
            return meeting
        _meetings += 1
        if isinstance(environment, LightningEnvironment) and not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
            raise ConfigError(
                f"trainer.num_nodes={meeting.size} needs a launcher such as torchrun or srun on every machine; without "
                "one, set MASTER_ADDR, MASTER_PORT and NODE_RANK there."
            )
        os.environ.update(MASTER_ADDR=environment.main_address, MASTER_PORT=str(environment.main_port))
        place = f"{environment.main_address}:{environment.main_port}"
        try:
            meets = rendezvous("env://", meeting.rank, meeting.size, timeout=_WAIT)
            meeting._store = next(meets)[0]  # kept: the first process may serve it
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the {meeting.size} processes of this run did not meet at {place}: {one_line(str(error))}"
            ) from error
        return meeting

    def announce(self, **facts: Any) -> None:
        """Tell the other processes: folder and is_complete, or exit_code if there is no run."""
        if self._store is not None:
            self._store.set(self._key, json.dumps(facts))

    def received(self) -> dict[str, Any]:
        """Wait for what the first process announces, and return it. Raises UserError if it has ended without a word."""
        try:
            facts: dict[str, Any] = json.loads(self._store.get(self._key))
        except RuntimeError as error:
            raise UserError(f"the first process of this run has ended: {one_line(str(error))}") from error
        if "folder" in facts and not Path(facts["folder"], "result.json").exists():
            raise UserError(
                f"{facts['folder']}, where the first process records the run, is not visible on "
                f"{socket.gethostname()}; set log_dir to a folder that all machines share."
            )
        return facts

    @property
    def _key(self) -> str:
        # torchrun may start all processes again, and a script may train several times.
        return f"vitexp/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{_meetings}"
