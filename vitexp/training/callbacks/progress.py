"""Progress in the terminal while a run trains: a bar within the epoch and one line per epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from vitexp.errors import UserError
from vitexp.system.timing import finished
from vitexp.training.task import Task

log = logging.getLogger(__name__)

_LINES = 50  # in the terminal; a small data set has hundreds of epochs. train.log has all of them


class EpochProgress(Callback):
    """A bar with images per second, if there is a terminal, and a line per epoch, also in train.log.

    started: Unix time in seconds at which the run started or resumed. Provides `time_to_first_step_s`;
    `first_step_s`, the duration of that step including compilation; `images_per_s` over all later training steps,
    without validation and figures; `fit_s` and `total_s`, the durations of training and run. For an interrupted run,
    only the part up to its last checkpoint counts.
    """

    def __init__(self, *, console: Console, show_bar: bool, started: float) -> None:
        self.console, self.show_bar, self.started = console, show_bar and console.is_terminal, started
        self.time_to_first_step_s: float | None = None
        self.first_step_s: float | None = None
        self.images, self.seconds = 0, 0.0
        self.epoch_images, self.epoch_seconds = 0, 0.0
        self.last_end: float | None = None
        self.fit_start, self.fit_before_s, self.total_before_s = started, 0.0, 0.0
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    @property
    def images_per_s(self) -> float | None:
        return self.images / self.seconds if self.seconds else None

    @property
    def fit_s(self) -> float:
        return self.fit_before_s + time.time() - self.fit_start

    @property
    def total_s(self) -> float:
        return self.total_before_s + time.time() - self.started

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.fit_start = time.time()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.last_end is None:  # the first of an epoch, after a validation, or of a resumed run
            self.last_end = time.perf_counter()
            self._show_bar(trainer)

    def _show_bar(self, trainer: Trainer) -> None:
        if self.show_bar and trainer.is_global_zero:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}", markup=False),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=self.console, transient=True, refresh_per_second=4)
            self.task = self.bar.add_task(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                total=int(trainer.num_training_batches),
                speed="",
            )
            self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.last_end is not None
        # From the end of one step to the end of the next, to include loading.
        if self.first_step_s is None:
            finished(pl_module.device)  # otherwise this would be the time of queueing the step
        since, self.last_end = self.last_end, time.perf_counter()
        if self.first_step_s is None:
            self.time_to_first_step_s = round(time.time() - self.started, 3)
            self.first_step_s = round(self.last_end - since, 3)
            return
        self.epoch_images += len(batch[1]) * trainer.world_size
        self.epoch_seconds += self.last_end - since
        if self.bar is not None and self.task is not None:
            speed = f"{self.epoch_images / self.epoch_seconds:,.0f} images/s"
            self.bar.update(self.task, completed=batch_idx + 1, speed=speed)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._complete_steps(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._complete_steps(pl_module)
        self.images += self.epoch_images
        self.seconds += self.epoch_seconds
        logged = cast(Task, pl_module).epoch_metrics()
        parts = [f"epoch {trainer.current_epoch + 1:>{len(str(trainer.max_epochs))}}/{trainer.max_epochs}"]
        for name, key, style in (
            ("train loss", "train/loss_epoch", ".3f"),
            ("val loss", "val/loss", ".3f"),
            ("val accuracy", "val/accuracy", ".2%"),
        ):
            if key in logged:
                parts.append(f"{name} {float(logged[key]):{style}}")
        if self.epoch_seconds:
            parts.append(f"{self.epoch_images / self.epoch_seconds:,.0f} images/s")
        every = math.ceil((trainer.max_epochs or 0) / _LINES) or 1
        is_shown = (trainer.current_epoch + 1) % every == 0 or trainer.current_epoch + 1 == trainer.max_epochs
        log.log(logging.INFO if is_shown else logging.DEBUG, "  ".join(parts))
        self.epoch_images, self.epoch_seconds = 0, 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "time_to_first_step_s": self.time_to_first_step_s,
            "first_step_s": self.first_step_s,
            "images": self.images,
            "seconds": self.seconds,
            "epoch": (self.epoch_images, self.epoch_seconds),
            "fit_s": self.fit_s,
            "total_s": self.total_s,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.time_to_first_step_s, self.first_step_s = state_dict["time_to_first_step_s"], state_dict["first_step_s"]
        self.images, self.seconds = state_dict["images"], state_dict["seconds"]
        self.epoch_images, self.epoch_seconds = state_dict["epoch"]
        self.fit_before_s, self.total_before_s = state_dict["fit_s"], state_dict["total_s"]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _complete_steps(self, pl_module: LightningModule) -> None:
        """Wait for the steps that the device has not executed yet, and count that time."""
        if self.last_end is not None and self.epoch_images:
            self.epoch_seconds += finished(pl_module.device) - self.last_end
        self._stop()

    def _stop(self) -> None:
        self.last_end = None
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class NonFiniteLoss(UserError):
    """Training diverged."""

    exit_code = 1


class StopOnNonFiniteLoss(Callback):
    """A callback that records, on the device, the first step with a NaN or infinite loss, and reads it when logging.

    Raises NonFiniteLoss then, and before each validation and checkpoint, so that checkpoints hold finite weights.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.first: Tensor | None = None  # 0 if all losses were finite
        self.step = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.step = trainer.global_step + 1  # the same for all batches whose gradients are accumulated

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
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            raise NonFiniteLoss(
                f"the loss has been NaN or infinite since step {step} (learning rate {lr:.2g}); try a lower optim.lr, "
                "a longer schedule.warmup_epochs, trainer.gradient_clip_val=1.0 or trainer.precision=32-true."
            )
