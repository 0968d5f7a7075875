"""Warn once when a training whose length was not asked for will take long on this device."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from lightning import Callback, LightningModule, Trainer

from vitexp.system.timing import finished
from vitexp.text import duration
from vitexp.training.task import data_of

log = logging.getLogger(__name__)

_LONG_S = 20 * 60.0
_MEASURED_S = 10.0
_WARMUP_STEPS = 2  # at least: compilation, first allocations
_WARMUP_S = 10.0  # at least: the first validation and checkpoint of a small set


class PaceWarning(Callback):
    """A callback that measures the first steps and warns if the whole training would take more than 20 minutes.

    advice: what would make a step faster, such as fewer patches; "" if unknown.
    """

    def __init__(self, *, advice: str = "") -> None:
        self.advice = advice
        self._steps, self._is_done = 0, False
        self._begun = self._start = 0.0  # when the first step ended, and when measuring started
        self._before = 0  # steps of the warmup

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
                self._start, self._before = finished(pl_module.device), self._steps
        elif time.perf_counter() - self._start >= _MEASURED_S:
            self._is_done = True
            per_batch = (finished(pl_module.device) - self._start) / (self._steps - self._before)
            batches, epochs = int(trainer.num_training_batches), int(trainer.max_epochs or 0)
            left = per_batch * (batches * (epochs - trainer.current_epoch) - batch_idx - 1)
            fewer = max(math.floor(_LONG_S / (per_batch * batches)), 1)
            if left >= _LONG_S and fewer > trainer.current_epoch and trainer.is_global_zero:
                speed = data_of(trainer).batch_size / trainer.accumulate_grad_batches / per_batch
                log.warning(
                    "at %.3g images/s, training takes about %s; %strainer.max_epochs=%d takes %s.",
                    speed,
                    duration(left),
                    self.advice and f"{self.advice}; ",
                    fewer,
                    duration(fewer * per_batch * batches),
                )
