"""Learning-rate schedules, as functions of the optimizer step.

A schedule is called with a step in [0, total_steps) and returns the learning rate of that step. Each starts with a
linear warmup (Goyal et al. 2017): step s of w warmup steps has peak * (s + 1) / w, so that the last reaches the peak.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any

from vitexp.options import Doc, Field

Epochs = Annotated[float, Field(ge=0, le=1e6)]
MinLr = Annotated[float, Field(ge=0, le=1e4), Doc("learning rate at the end of a cosine")]


class Schedule(ABC):
    """Linear warmup, followed by what a subclass defines."""

    def __init__(self, *, warmup_epochs: Annotated[Epochs, Doc("length of the warmup; may be a fraction")] = 1) -> None:
        self.warmup_epochs = warmup_epochs

    def __call__(self, step: int, *, total_steps: int, steps_per_epoch: float, peak_lr: float) -> float:
        """Return the learning rate of `step`."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return peak_lr * (step + 1) / warmup
        return self.after_warmup(step - warmup, max(total_steps - warmup, 1), steps_per_epoch, peak_lr)

    @abstractmethod
    def after_warmup(self, step: int, steps: int, steps_per_epoch: float, peak_lr: float) -> float:
        """Return the learning rate of step number `step` of the `steps` that follow the warmup."""


class CosineWarmup(Schedule):
    """One half cosine from the peak to min_lr (SGDR without restarts, Loshchilov and Hutter 2017)."""

    def __init__(self, *, min_lr: MinLr = 1e-5, **warmup: Any) -> None:
        super().__init__(**warmup)
        self.min_lr = min_lr

    def after_warmup(self, step: int, steps: int, steps_per_epoch: float, peak_lr: float) -> float:
        return _half_cosine(min(step / steps, 1.0), peak_lr, self.min_lr)


class CosineRestarts(Schedule):
    """Half cosines, each `period_factor` times as long as the one before (SGDR, Loshchilov and Hutter 2017)."""

    def __init__(
        self,
        *,
        min_lr: MinLr = 1e-5,
        period_epochs: Annotated[float, Field(ge=0.01, le=1e6), Doc("length of the first cosine")] = 3,
        period_factor: Annotated[
            float, Field(ge=1, le=1000), Doc("each cosine is this many times as long as the one before")
        ] = 2.0,
        **warmup: Any,
    ) -> None:
        super().__init__(**warmup)
        if period_epochs <= 0 or period_factor < 1:
            raise ValueError(
                f"period_epochs={period_epochs} must be above 0 and period_factor={period_factor} at least 1: "
                "shrinking periods would never reach the end of training."
            )
        self.min_lr, self.period_epochs, self.period_factor = min_lr, period_epochs, period_factor

    def after_warmup(self, step: int, steps: int, steps_per_epoch: float, peak_lr: float) -> float:
        period = self.period_epochs * steps_per_epoch
        while step >= period:
            step -= math.ceil(period)
            period *= self.period_factor
        return _half_cosine(max(step, 0) / period, peak_lr, self.min_lr)


class Constant(Schedule):
    """The peak learning rate until the end."""

    def after_warmup(self, step: int, steps: int, steps_per_epoch: float, peak_lr: float) -> float:
        return peak_lr


def _half_cosine(done: float, start: float, end: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))
