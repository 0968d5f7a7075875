"""Stop a training whose loss is not finite, and name the layer where it started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from vitexp.errors import UserError
from vitexp.training.task import Batch, Task


class NonFiniteLoss(UserError):
    """Training diverged."""

    exit_code = 1


class StopOnNonFiniteLoss(Callback):
    """A callback that records, on the device, the first step with a NaN or infinite loss, and reads it when logging.

    Raises NonFiniteLoss then, and before each validation and checkpoint, so that checkpoints hold finite weights. Where
    reading does not wait for the device, on a CPU or with log_every_n_steps=1, it reads before each optimizer step: the
    weights are still those that caused it, so that the message can name a layer.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.first: Tensor | None = None  # 0 if all losses were finite
        self.step = 0
        self.batch: tuple[Batch, int] | None = None  # and its index

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.step = trainer.global_step + 1  # the same for all batches whose gradients are accumulated
        self.batch = batch, batch_idx

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        reads = pl_module.device.type == "cpu" or trainer.log_every_n_steps == 1  # type: ignore[attr-defined]
        if reads and self.batch is not None and not torch.isfinite(cast(Task, pl_module).train_loss):
            earlier = 0 if self.first is None else int(self.first.item())  # of accumulated gradients
            found = first_non_finite(cast(Task, pl_module), *self.batch)
            self._refuse(trainer, earlier or self.step, f", first in {found}")

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
            self.first = torch.zeros((), dtype=torch.long, device=loss.device)
        self.first = torch.where((self.first == 0) & ~torch.isfinite(loss), self.step, self.first)
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self.first is not None and (step := int(self.first.item())):
            self._refuse(trainer, step, "; with trainer.log_every_n_steps=1 this message names the layer")

    def _refuse(self, trainer: Trainer, step: int, place: str) -> None:
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        raise NonFiniteLoss(
            f"the loss has been NaN or infinite since step {step} (learning rate {lr:.2g}){place}; try a lower "
            "optim.lr, a longer schedule.warmup_epochs, trainer.gradient_clip_val=1.0 or trainer.precision=32-true."
        )


@torch.no_grad()
def first_non_finite(module: Task, batch: Batch, batch_index: int) -> str:
    """Repeat the forward pass of a batch; return the place of the first value that is not finite.

    For example "the output of blocks.3.attn.proj" or "the images". Augmentation draws the same random numbers again.
    """
    weights = {name: bool(torch.isfinite(weight).all()) for name, weight in module.net.named_parameters()}
    if not all(weights.values()):  # clipping spreads a gradient that is not finite to all of them
        names = [name for name, is_finite in weights.items() if not is_finite]
        return f"the gradients of {names[0] if any(weights.values()) else 'the network'}, one step before"
    images, targets = module.training_batch(batch, batch_index)
    if not torch.isfinite(images).all():
        return "the images"
    found: list[str] = []

    def note(name: str, output: Any) -> None:
        if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
            found.append(name)

    # Modules that contain others end after them, so that the innermost is noted first.
    handles = [
        part.register_forward_hook(lambda _, given, output, name=name: note(name, output))
        for name, part in module.net.named_modules()
    ]
    try:
        with torch.compiler.set_stance("force_eager"), module.trainer.precision_plugin.train_step_context():
            module.learn(images, targets)
    finally:
        for handle in handles:
            handle.remove()
    return f"the output of {found[0] or 'the network'}" if found else "the loss function"
