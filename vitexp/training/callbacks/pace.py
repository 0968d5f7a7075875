"""Say once how long the training will take on this device; warn if that is long and was not asked for."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from lightning import Callback, LightningModule, Trainer

from vitexp.system.timing import finished
from vitexp.text import duration
from vitexp.training.callbacks.progress import time_left
from vitexp.training.task import data_of

log = logging.getLogger(__name__)

_LONG_S = 20 * 60.0
_MEASURED_S = 10.0
_WARMUP_STEPS = 2  # at least: compilation, first allocations
_WARMUP_S = 10.0  # at least: the first validation and checkpoint of a small set


class Pace(Callback):
    """A callback that measures the first steps and says how long the rest of the training takes.

    warns: whether to warn, with a shorter length, if the whole training would take more than 20 minutes.
    advice: what would make a step faster, such as fewer patches; "" if unknown.
    """

    def __init__(self, *, warns: bool, advice: str = "") -> None:
        self.warns, self.advice = warns, advice
        self._since = 0.0, 0  # when measuring started, and the optimizer steps made by then
        self._steps, self._is_done = 0, False
        self._begun = 0.0  # when the first step ended
        self._before = 0  # batches of the warmup

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_done:
            return
        self._steps += 1
        if self._steps == 1:
            self._begun = time.perf_counter()
        elif not self._before:
            if self._steps >= _WARMUP_STEPS and time.perf_counter() - self._begun >= _WARMUP_S:
                self._since, self._before = (finished(pl_module.device), trainer.global_step), self._steps
        elif time.perf_counter() - self._since[0] >= _MEASURED_S and trainer.global_step > self._since[1]:
            self._is_done = True
            per_batch = (finished(pl_module.device) - self._since[0]) / (self._steps - self._before)
            batches, epochs = int(trainer.num_training_batches), int(trainer.max_epochs or 0)
            left = per_batch * (batches * (epochs - trainer.current_epoch) - batch_idx - 1)
            fewer = max(math.floor(_LONG_S / (per_batch * batches)), 1)
            if not trainer.is_global_zero:
                return
            speed = f"at {data_of(trainer).batch_size / trainer.accumulate_grad_batches / per_batch:.3g} images/s"
            if self.warns and left >= _LONG_S and fewer > trainer.current_epoch:
                log.warning(
                    "%s, training takes about %s; %strainer.max_epochs=%d takes %s.",
                    speed,
                    duration(left),
                    self.advice and f"{self.advice}; ",
                    fewer,
                    duration(fewer * per_batch * batches),
                )
            elif text := time_left(trainer, since=self._since):
                log.info("%s, %s", speed, text)
