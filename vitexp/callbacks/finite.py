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
    """Remembers on the device the first step with a loss of NaN or infinity, and looks at it when scalars are logged.

    Raises NonFiniteLoss then, and before each validation, so that the checkpoints keep weights from before.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.first: Tensor | None = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(outputs, Mapping)
        loss = outputs["loss"].detach()
        if self.first is None:
            self.first = torch.full_like(loss, -1.0)
        unseen = ~torch.isfinite(loss) & (self.first < 0)
        self.first = torch.where(unseen, torch.full_like(loss, float(trainer.global_step)), self.first)
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._look(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        if self.first is not None and (step := int(self.first.item())) >= 0:
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            raise NonFiniteLoss(
                f"the loss is not a number since step {step} (learning rate {lr:.2g}); likely causes are too high a "
                "learning rate (optim.lr), too short a warmup (schedule.warmup_epochs), no gradient clipping "
                "(trainer.gradient_clip_val=1.0) or half precision (trainer.precision=32-true)."
            )
