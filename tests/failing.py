"""Callbacks that break a run of another process on purpose: +callbacks.x={_target_: tests.failing.NoMemory, ...}."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer


class NoMemory(Callback):
    """A callback that simulates running out of memory at step `step` on some ranks."""

    def __init__(self, *, ranks: Sequence[int], step: int) -> None:
        self.ranks, self.step = ranks, step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank in self.ranks and trainer.global_step == self.step:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")


class SecondProcess(Callback):
    """A callback that ends the process of rank 1 at step 1: how = raise | kill. stuck: rank 0 then never goes on."""

    def __init__(self, *, how: str, stuck: bool = False) -> None:
        self.how, self.stuck = how, stuck

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step != 1:
            return
        if trainer.global_rank == 0 and self.stuck:
            time.sleep(600)
        elif trainer.global_rank == 1 and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif trainer.global_rank == 1:
            raise ValueError("the second process has had enough")
