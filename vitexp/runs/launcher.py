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
from typing import Any, ClassVar

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from omegaconf import DictConfig
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from vitexp.errors import ConfigError, UserError, one_line

# Set for processes that another process of the run has started: where it is recorded, and which process that is.
RUN_FOLDER, PARENT = "VITEXP_RUN_FOLDER", "VITEXP_PARENT"
_WAIT = timedelta(minutes=10)  # for the slowest machine to start


class _Srun(SLURMEnvironment):
    """SLURM, if srun started this process; the variables of a job alone do not say so."""

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)  # our own handlers save a checkpoint; the job's script decides

    @staticmethod
    def detect() -> bool:
        return "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1

    @property
    def main_port(self) -> int:
        """A port of this step alone: several steps of a job may run at the same time."""
        job, step = (int(os.environ.get(name, 0)) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        return int(os.environ.get("MASTER_PORT", 15_000 + (job * 16 + step) % 10_000))


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
    environment, nodes = cluster_environment(), int(config.trainer.num_nodes)
    try:
        if isinstance(environment, LightningEnvironment):  # one process per machine, which starts the others
            return (environment.node_rank(), nodes) if nodes > 1 else (0, 1)
        return environment.global_rank(), environment.world_size()
    except (KeyError, ValueError) as error:  # a variable is missing, or not a number
        raise ConfigError(f"the variables of the launcher are incomplete: {one_line(str(error))}.") from error


class Meeting:
    """The processes that have been started for one run; the first announces the folder of the run to the others."""

    has_taken_place: ClassVar[bool] = False  # in this process

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._stores: list[Any] = []  # kept, because the first process may serve them

    @classmethod
    def of(cls, config: DictConfig) -> Meeting:
        """Wait for the other processes of the run of `config`, if there are any.

        Raises ConfigError if it is unknown where they meet, and UserError if they do not all come.
        """
        environment, devices = cluster_environment(), config.trainer.devices
        if isinstance(devices, int) and devices > 0:  # otherwise known only when the Trainer has found the devices
            refuse_other_number(environment, devices * config.trainer.num_nodes)
        meeting = cls(*_rank_and_size(config))
        if meeting.size == 1:
            return meeting
        if isinstance(environment, LightningEnvironment) and not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
            raise ConfigError(
                f"trainer.num_nodes={meeting.size} needs a launcher such as torchrun or srun on every machine; without "
                "one, set MASTER_ADDR, MASTER_PORT and NODE_RANK there."
            )
        if Meeting.has_taken_place:
            raise ConfigError(
                "a script that torchrun or srun starts can train only once, because all processes but the first end "
                "with the training."
            )
        Meeting.has_taken_place = True
        meeting._meet(environment.main_address, environment.main_port)
        return meeting

    def _meet(self, address: str, port: int) -> None:
        os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
        try:
            meets = next(rendezvous("env://", self.rank, self.size, timeout=_WAIT))[0]
            self._stores.append(meets)
            # In a store of their own: torchrun keeps its store when it starts the processes again, and with it what the
            # first ones left there.
            if self.rank == 0:
                own = TCPStore(address, 0, is_master=True, wait_for_workers=False, timeout=_WAIT)
                self._stores.append(own)
                meets.set(f"{self._key}/port", str(own.port))
            os.environ.update(
                MASTER_PORT=meets.get(f"{self._key}/port").decode(),
                TORCHELASTIC_USE_AGENT_STORE="True",  # tells torch that the store exists
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the {self.size} processes of this run did not meet at {address}:{port}: {one_line(str(error))}"
            ) from error

    def announce(self, **facts: Any) -> None:
        """Send facts about the run to the other processes: folder, is_complete and config_hash, or only exit_code."""
        if self._stores:
            self._stores[0].set(self._key, json.dumps(facts))

    def received(self) -> dict[str, Any]:
        """Wait for what the first process announces, and return it. Raises UserError if it has ended without a word."""
        try:
            facts: dict[str, Any] = json.loads(self._stores[0].get(self._key))
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
        """The name of this start: torchrun may start the processes again, and another step may use the same store."""
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_STEP_ID")
        return "/".join(("vitexp", *(os.environ.get(name, "") for name in names)))
