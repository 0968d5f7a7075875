"""Progress in the terminal: a bar over the whole training, one line per epoch, and what happens after training."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from vitexp.system.timing import finished
from vitexp.text import duration, plural
from vitexp.training.task import Task

log = logging.getLogger(__name__)

_LINES = 50  # in the terminal; a small data set has hundreds of epochs. train.log has all of them


class EpochProgress(Callback):
    """A bar with the time left, if there is a terminal, and a line per epoch, also in train.log.

    The bar covers all epochs of training, in optimizer steps; after training it names what is being done.

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
        self.since: tuple[float, int] | None = None  # time and step at the end of the first step here

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
            self._show(trainer, f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def _show(self, trainer: Trainer, doing: str, **changes: Any) -> None:
        """Write what is being done in front of the bar, which is created if necessary."""
        if not (self.show_bar and trainer.is_global_zero):
            return
        if self.bar is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[speed]}", markup=False),
                TextColumn("{task.fields[left]}", markup=False),
            )
            self.bar = Progress(*columns, console=self.console, transient=True, refresh_per_second=4)
            total = trainer.estimated_stepping_batches if trainer.training else None
            self.task = self.bar.add_task(
                doing, total=total, completed=trainer.global_step if trainer.training else 0, speed="", left=""
            )
            self.bar.start()
        assert self.task is not None
        self.bar.update(self.task, description=doing, **changes)

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
            self.since = self.last_end, trainer.global_step
            return
        self.since = self.since or (self.last_end, trainer.global_step)
        self.epoch_images += len(batch[1]) * trainer.world_size
        self.epoch_seconds += self.last_end - since
        if self.bar is not None and self.task is not None:
            speed = f"{self.epoch_images / self.epoch_seconds:,.0f} images/s"
            left = time_left(trainer, since=self.since)
            self.bar.update(self.task, completed=trainer.global_step, speed=speed, left=left)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._complete_steps(pl_module)
        if self.bar is not None:
            self._show(trainer, "validating")

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
            ("k-NN accuracy", "val/knn_accuracy", ".2%"),
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

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, "testing", total=sum(trainer.num_test_batches))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self._show(trainer, "testing", completed=batch_idx + 1)

    def drawing(self, trainer: Trainer, number: int, total: int) -> None:
        """Say that figure `number` of `total` is being drawn."""
        if self.show_bar:
            self._show(trainer, f"drawing figures {number}/{total}", completed=number - 1, total=total)
        elif number == 1:
            log.info("drawing %s", plural(total, "figure"))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _complete_steps(self, pl_module: LightningModule) -> None:
        """Wait for the steps that the device has not executed yet, and count that time."""
        if self.last_end is not None and self.epoch_images:
            self.epoch_seconds += finished(pl_module.device) - self.last_end
        self.last_end = None

    def _stop(self) -> None:
        self.last_end = None
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def time_left(trainer: Trainer, *, since: tuple[float, int]) -> str:
    """Return how long the rest of training takes, such as "3 min 05 s left", with validation; "" if unknown.

    since: a time of time.perf_counter and the number of optimizer steps made by then. Early stopping may end training
    sooner, which is said.
    """
    steps = trainer.global_step - since[1]
    if not steps:
        return ""
    seconds = (trainer.estimated_stepping_batches - trainer.global_step) * (time.perf_counter() - since[0]) / steps
    limits = [each.time_remaining() for each in trainer.callbacks if isinstance(each, Timer)]  # type: ignore[attr-defined]
    seconds = min([seconds, *(limit for limit in limits if limit is not None)])
    if not math.isfinite(seconds):
        return ""
    stops = any(isinstance(each, EarlyStopping) for each in trainer.callbacks)  # type: ignore[attr-defined]
    return f"{'at most ' if stops else ''}{duration(max(seconds, 0))} left"
