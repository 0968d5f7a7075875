"""An exponential moving average of the weights, which is validated, tested and kept instead of the weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """A callback that averages the weights after each optimizer step; the first step starts the average.

    Unlike Lightning's EMAWeightAveraging, it leaves constant buffers such as fixed positions exact, and never waits for
    the device: torch's AveragedModel reads its counter from there at every step.

    decay: the share of the old average.
    """

    def __init__(self, *, decay: float) -> None:
        super().__init__()
        self.decay = decay

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._latest_update_step:
            return  # gradients are accumulated
        assert self._average_model is not None
        averaged: list[Tensor] = [*self._average_model.module.parameters()]
        current: list[Tensor] = [*pl_module.parameters()]
        torch._foreach_lerp_(averaged, current, 1.0 - self.decay if self._latest_update_step else 1.0)
        for kept, buffer in zip(self._average_model.module.buffers(), pl_module.buffers(), strict=True):
            kept.copy_(buffer)
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the averages in the network, also if a resumed training has no step left: it has no `on_train_end`."""
        self.on_train_end(trainer, pl_module)
