"""The checkpoint of the weights that validation chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """A callback that writes `folder`/best.ckpt whenever the monitored metric is better than ever before.

    Among equal values, the lower val/loss is better: the accuracy on few validation images has few different values.
    """

    def __init__(self, folder: Path, *, monitor: str | None, mode: str) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=monitor,
            mode=mode,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.best_loss: Tensor | None = None

    @property
    def state_key(self) -> str:
        return super().state_key.replace(type(self).__name__, "ModelCheckpoint", 1)  # the name in earlier checkpoints

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        is_best = super().check_monitor_top_k(trainer, current)
        loss, score = trainer.callback_metrics.get("val/loss"), self.best_model_score
        if current is not None and score is not None and loss is not None and self.best_loss is not None:
            is_best = is_best or bool(torch.equal(current.cpu(), score.cpu()) and loss < self.best_loss)
        if is_best:
            self.best_loss = None if loss is None else loss.detach().cpu()
        return is_best

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.best_loss = state_dict.get("best_loss")
