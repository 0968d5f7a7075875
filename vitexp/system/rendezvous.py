"""Let the processes of a distributed run on one machine meet on 127.0.0.1 only."""

from __future__ import annotations

import os
import socket
import sys

from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import ParallelStrategy
from torch.distributed import TCPStore  # type: ignore[attr-defined]

_HOST = "127.0.0.1"
_INTERFACE = "lo0" if sys.platform == "darwin" else "lo"


def meet_on_loopback(trainer: Trainer) -> TCPStore | None:
    """Open the store through which the processes that Lightning starts find each other; keep it until the end.

    torch would open one on all addresses of the machine, whatever MASTER_ADDR says (pytorch/pytorch#173909), where
    anyone could write to it. Returns None and does nothing if there is only one process, if another launcher starts the
    processes (srun, torchrun), if the user has chosen the address (trainer.num_nodes, MASTER_ADDR), or on Windows.
    """
    strategy = trainer.strategy
    environment = strategy.cluster_environment if isinstance(strategy, ParallelStrategy) else None
    starts_them = isinstance(environment, LightningEnvironment) and not environment.creates_processes_externally
    if sys.platform == "win32" or not starts_them or trainer.num_nodes > 1 or "MASTER_ADDR" in os.environ:
        return None
    listener = socket.create_server((_HOST, 0))
    port = listener.getsockname()[1]
    store = TCPStore(_HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    # The first variable tells torch that a store exists. NCCL and gloo open their own connections on this interface.
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="True", MASTER_ADDR=_HOST, MASTER_PORT=str(port))
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", _INTERFACE)
    return store
