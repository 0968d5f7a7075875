"""Early stopping that counts epochs, however often they are validated."""

from __future__ import annotations

from typing import Any

from lightning import Trainer
from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, with a patience of `epochs` instead of validations.

    It stops at the first validation that comes `epochs` epochs of batches after the best one. The name is Lightning's,
    because checkpoints refer to it.
    """

    def __init__(self, monitor: str, *, mode: str, epochs: int) -> None:
        super().__init__(monitor, mode=mode)
        self.epochs = epochs
        self.best_batch: int | None = None  # batches trained when the best score was reached

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        batch, per_epoch = trainer.fit_loop.total_batch_idx + 1, int(trainer.num_training_batches)
        if self.best_batch is None:  # a new run, or one whose checkpoint is from when validations were counted
            self.best_batch = batch - (self.wait_count + 1) * per_epoch
        is_over = batch - self.best_batch >= self.epochs * per_epoch
        self.patience = self.wait_count + (1 if is_over else 2)  # Lightning stops when wait_count, plus 1, reaches it
        super()._run_early_stopping_check(trainer)
        if self.wait_count == 0:
            self.best_batch = batch

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best_batch": self.best_batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.best_batch = state_dict.get("best_batch")
