"""Schedules against their closed forms."""

from __future__ import annotations

import math

import pytest

from vitexp.training.schedules import Constant, CosineRestarts, CosineWarmup, Schedule


def lr(schedule: Schedule, step: int) -> float:
    return schedule(step, total_steps=110, steps_per_epoch=10, peak_lr=0.8)


def test_warmup_is_linear_and_its_last_step_reaches_the_peak() -> None:
    for schedule in (
        CosineWarmup(warmup_epochs=1, min_lr=0.0),
        CosineRestarts(warmup_epochs=1, min_lr=0.0, period_epochs=2, period_factor=2),
        Constant(warmup_epochs=1),
    ):
        assert [lr(schedule, step) for step in range(10)] == pytest.approx([0.08 * (step + 1) for step in range(10)])


def test_cosine_falls_from_the_peak_through_the_mean_to_the_minimum() -> None:
    schedule = CosineWarmup(warmup_epochs=1, min_lr=0.2)
    assert lr(schedule, 10) == pytest.approx(0.8)
    assert lr(schedule, 60) == pytest.approx(0.5)  # half of the 100 steps after warmup
    assert lr(schedule, 85) == pytest.approx(0.2 + 0.6 * 0.5 * (1 + math.cos(0.75 * math.pi)))
    assert lr(schedule, 110) == pytest.approx(0.2)


def test_restarts_return_to_the_peak_after_growing_periods() -> None:
    schedule = CosineRestarts(warmup_epochs=1, min_lr=0.0, period_epochs=2, period_factor=2)
    assert [lr(schedule, step) for step in (10, 30, 70)] == pytest.approx([0.8, 0.8, 0.8])
    assert lr(schedule, 20) == pytest.approx(0.4)  # half of the first period of 20
    assert lr(schedule, 50) == pytest.approx(0.4)  # half of the second, of 40
    assert lr(schedule, 69) < 0.01


def test_constant_keeps_the_peak_and_without_warmup_starts_there() -> None:
    assert {lr(Constant(warmup_epochs=1), step) for step in range(10, 110)} == {0.8}
    assert lr(CosineWarmup(warmup_epochs=0, min_lr=0.0), 0) == 0.8


def test_warmup_of_a_fraction_of_an_epoch() -> None:
    assert lr(CosineWarmup(warmup_epochs=0.5, min_lr=0.0), 4) == pytest.approx(0.8)
    assert lr(CosineWarmup(warmup_epochs=0.5, min_lr=0.0), 3) == pytest.approx(0.64)


def test_shrinking_periods_are_refused() -> None:
    with pytest.raises(ValueError, match="period_factor"):
        CosineRestarts(warmup_epochs=0, min_lr=0, period_epochs=1, period_factor=0.5)
