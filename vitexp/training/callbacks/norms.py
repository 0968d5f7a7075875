"""Norms of gradients, weights and updates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer


class Norms(Callback):
    """A callback that logs Euclidean norms over all parameters every trainer.log_every_n_steps optimizer steps.

    train/gradient_norm: of the gradients, before clipping. train/weight_norm: of the parameters before the step.
    train/update_ratio: of their change in the step, divided by train/weight_norm; far above 1e-2 training is unstable,
    far below 1e-4 it hardly moves.
    """

    can_change_result = False

    def __init__(self) -> None:
        self.before: list[Tensor] | None = None  # the parameters before a step that is logged

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if (trainer.global_step + 1) % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        parameters = _trained(pl_module)
        self.before = [parameter.detach().clone() for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self.norms = {"train/gradient_norm": _norm(gradients), "train/weight_norm": _norm(self.before)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.before is None:
            return
        change = torch._foreach_sub([parameter.detach() for parameter in _trained(pl_module)], self.before)
        ratio = _norm(change) / self.norms["train/weight_norm"]
        pl_module.log_dict({**self.norms, "train/update_ratio": ratio})
        self.before = None


def _trained(module: LightningModule) -> list[Tensor]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the Euclidean norm of all values of all `tensors`, float32 []."""
    norms: Tensor = torch.stack(torch._foreach_norm([each.float() for each in tensors])).norm()
    return norms
