"""Stops a run whose loss is no longer a number, before a checkpoint of it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from vitexp.errors import UserError


class NonFiniteLoss(UserError):
    """The training diverged."""

    exit_code = 1


class StopOnNonFiniteLoss(Callback):
    """Counts on the device the steps with a loss of NaN or infinity, and looks at the count when scalars are logged.

    Raises NonFiniteLoss then, before each validation and before each checkpoint, which so keeps weights from before.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.count: Tensor | None = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(outputs, Mapping)
        bad = ~torch.isfinite(outputs["loss"].detach())
        self.count = bad.long() if self.count is None else self.count + bad
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._look(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        if self.count is not None and (count := int(self.count.item())):
            step = trainer.global_step - count + 1  # once the weights are no numbers, no loss is
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            raise NonFiniteLoss(
                f"the loss is not a number since step {step} (learning rate {lr:.2g}); likely causes are too high a "
                "learning rate (optim.lr), too short a warmup (schedule.warmup_epochs), no gradient clipping "
                "(trainer.gradient_clip_val=1.0) or half precision (trainer.precision=32-true)."
            )
