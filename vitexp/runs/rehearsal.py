"""Train for a few steps without a run: find the learning rate and the batch size of a configuration."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from numpy.typing import NDArray
from omegaconf import DictConfig, open_dict
from torch import Tensor

from vitexp.data.datamodule import ImageDataModule
from vitexp.data.length import AUTO
from vitexp.errors import UserError
from vitexp.runs.build import build_datamodule, build_module, build_trainer, settle
from vitexp.runs.teacher import load_teacher
from vitexp.runs.tryout import try_out
from vitexp.runs.weights import starting_weights
from vitexp.system.hardware import choose_device, float32_matmul_precision, keep_freed_memory
from vitexp.system.terminal import logging_to, plain_console
from vitexp.system.timing import finished
from vitexp.training.out_of_memory import fitting_sizes, spare_bytes, step
from vitexp.training.schedules import Schedule
from vitexp.training.task import Task, data_of

LOWEST, HIGHEST = 1e-5, 10.0  # learning rates of the range test: those of all optimizers lie between them
_DIVERGED = 4.0  # times the lowest smoothed loss
_CHECKED = 10  # steps between looks at the loss, which wait for the device
_MEMORY = 0.95  # of the moving average of the loss
_UNSTEADY = 10  # first steps, whose moving average follows the noise
_LONG_S = 30.0  # of one step


def build_parts(config: DictConfig) -> tuple[ImageDataModule, Task]:
    """Return the data module, already set up, and the task of a checked configuration. Raises UserError."""
    weights, teacher = starting_weights(config), load_teacher(config, resumed=None)
    try_out(config, weights)
    datamodule, augment = build_datamodule(config, weights)
    if teacher is not None:
        teacher.refuse_other_classes(datamodule.source.classes)
    datamodule.setup()
    seed_everything(config.seed, workers=True, verbose=False)
    return datamodule, build_module(config, datamodule, augment, weights, teacher)


# ---- learning rate


@dataclass(frozen=True, kw_only=True)
class RangeTest:
    """Training loss at increasing learning rates.

    rates: [N], float64. losses: [N], float64, of single batches. smoothed: [N], their moving average. suggested: the
    learning rate at which the average falls fastest. passes: how often each training image was seen.
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    suggested: float
    passes: float


def range_test(config: DictConfig, *, steps: int) -> RangeTest:
    """Train while the learning rate rises from 1e-5 to 10, each step by the same factor (Smith 2017, section 3.3).

    steps: optimizer steps; fewer if the loss diverges before. Raises UserError if the loss never falls.
    """
    losses = _Losses()
    _rehearse(config, losses, steps=steps, schedule=_Rising(steps))
    values = torch.stack(losses.values).double().cpu().numpy()
    if not np.isfinite(values).all():
        values = values[: int(np.argmin(np.isfinite(values)))]
    rates = np.array([_rate(index, steps) for index in range(len(values))])
    smoothed = _moving_average(values)
    suggested, passes = _steepest(rates, smoothed), len(losses.values) / losses.steps_per_pass
    return RangeTest(rates=rates, losses=values, smoothed=smoothed, suggested=suggested, passes=passes)


def _steepest(rates: NDArray[np.float64], smoothed: NDArray[np.float64]) -> float:
    """Return the rate at which the loss falls fastest over the logarithm of the rate, before its minimum.

    The first steps are skipped: a moving average of few values follows the noise.
    """
    lowest = int(np.argmin(smoothed)) if len(smoothed) else 0
    if lowest < _UNSTEADY + 2:
        raise UserError(
            f"the loss does not fall at any learning rate from {LOWEST:g} to {HIGHEST:g}; try more steps=, or another "
            "configuration."
        )
    falling = slice(_UNSTEADY, lowest + 1)
    slopes = np.gradient(smoothed[falling], np.log(rates[falling]))
    return float(rates[falling][int(np.argmin(slopes))])


def _moving_average(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exponential moving average, without the bias of its first values (Kingma and Ba 2015, section 3)."""
    average, smoothed = 0.0, []
    for number, value in enumerate(values, start=1):
        average = _MEMORY * average + (1 - _MEMORY) * value
        smoothed.append(average / (1 - _MEMORY**number))
    return np.array(smoothed)


def _rate(index: int, steps: int) -> float:
    return float(LOWEST * (HIGHEST / LOWEST) ** (index / max(steps - 1, 1)))


class _Rising(Schedule):
    def __init__(self, steps: int) -> None:
        super().__init__(warmup_epochs=0)
        self.steps = steps

    def after_warmup(self, step: int, steps: int, steps_per_epoch: float, peak_lr: float) -> float:
        return _rate(step, self.steps)


class _Losses(Callback):
    """A callback that keeps the loss of each optimizer step, and ends the training when it diverges."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps_per_pass = trainer.num_training_batches / trainer.accumulate_grad_batches

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step == len(self.values):
            return  # a batch whose gradients are accumulated
        self.values.append(cast(Task, pl_module).train_loss)
        if len(self.values) % _CHECKED == 0:
            smoothed = _moving_average(torch.stack(self.values).double().cpu().numpy())
            if not smoothed[-1] <= _DIVERGED * np.nanmin(smoothed):  # also if it is not a number
                trainer.should_stop = True


# ---- batch size


def fitting_batches(config: DictConfig) -> list[tuple[int, float]]:
    """Return the batch sizes that fit into memory, powers of two with an eighth to spare, and their images/s.

    Ends at the number of training images, or when a step takes half a minute. Raises UserError if not even 1 image
    fits.
    """
    found = _Fitting()
    with open_dict(config := config.copy()):
        config.data.batch_size = 2  # of the batch that follows the search; mixing needs two images
        config.trainer.accumulate_grad_batches = 1
    _rehearse(config, found, steps=1)
    if not found.speeds:
        raise UserError(f"not even 1 image of {config.model.name} fits into memory; use a smaller model.")
    return found.speeds


class _Fitting(Callback):
    """A callback that measures batches of increasing size in place of the first: batch size and images/s."""

    def __init__(self) -> None:
        self.speeds: list[tuple[int, float]] = []

    def on_train_batch_start(  # type: ignore[override]  # Lightning ends the epoch for -1
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> int:
        module, images = cast(Task, pl_module), len(data_of(trainer).train)
        spare = spare_bytes() if pl_module.device.type == "cpu" else math.inf
        sizes = [1 << power for power in range(images.bit_length()) if 1 << power <= images]
        for size in fitting_sizes(trainer, module, sizes, spare=math.inf if spare is None else spare):
            start = finished(pl_module.device)
            step(trainer, module, size)
            seconds = finished(pl_module.device) - start
            self.speeds.append((size, size / seconds))
            if seconds > _LONG_S:
                break
        trainer.should_stop = True
        return -1


# ---- both


def _rehearse(config: DictConfig, callback: Callback, *, steps: int, schedule: Schedule | None = None) -> None:
    """Train for `steps` optimizer steps on one device, without validation, and leave nothing on disk."""
    with open_dict(config := config.copy()):
        config.trainer.update(
            devices=1,
            strategy="auto",
            max_epochs=AUTO,
            max_steps=steps,
            max_time=None,
            limit_train_batches=1.0,
            limit_val_batches=0,
            enable_checkpointing=False,
        )
    device = choose_device(config.trainer.accelerator)
    with (
        tempfile.TemporaryDirectory() as folder,
        logging_to(None, plain_console()),
        float32_matmul_precision(config.trainer.float32_matmul_precision, device),
    ):
        trainer = build_trainer(config, device=device, callbacks=[callback], loggers=[], folder=Path(folder))
        datamodule, module = build_parts(config)
        settle(config, trainer, datamodule)
        if schedule is not None:
            module.schedule = schedule
        if device.type == "cpu":
            keep_freed_memory()
        trainer.fit(module, datamodule=datamodule)
