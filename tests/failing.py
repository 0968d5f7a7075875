"""Callbacks that break a run of another process on purpose: +callbacks.x={_target_: tests.failing.NoMemory, ...}."""

from __future__ import annotations

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
