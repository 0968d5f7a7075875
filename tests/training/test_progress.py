"""The time that the progress bar says is left, and what it writes."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import Timer
from rich.console import Console

from vitexp.training.callbacks.progress import EpochProgress, time_left
from vitexp.training.early_stopping import EarlyStopping


def trainer(step: int, total: float, *callbacks: Any) -> Any:
    return SimpleNamespace(global_step=step, estimated_stepping_batches=total, callbacks=list(callbacks))


class _Limit(Timer):
    def time_remaining(self, stage: Any = None) -> float:
        return 30.0


@pytest.mark.parametrize(
    ("step", "total", "callbacks", "left"),
    [
        (20, 100, [], "1 min 20 s left"),  # 10 steps took 10 s
        (100, 100, [], "0.0 s left"),
        (10, 100, [], ""),  # no step yet
        (20, float("inf"), [], ""),
        (20, float("inf"), [_Limit({"hours": 1})], "30.0 s left"),
        (20, 100, [_Limit({"hours": 1})], "30.0 s left"),
        (20, 100, [EarlyStopping("val/loss", mode="min", epochs=2)], "at most 1 min 20 s left"),
    ],
)
def test_time_left(step: int, total: float, callbacks: list[Any], left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run made its first 10 steps earlier."""
    monkeypatch.setattr(time, "perf_counter", lambda: 1010.0)
    assert time_left(trainer(step, total, *callbacks), since=(1000.0, 10)) == left


@pytest.mark.parametrize("is_terminal", [True, False])
def test_figures_are_counted_in_a_terminal_only(is_terminal: bool, caplog: pytest.LogCaptureFixture) -> None:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=80)
    progress = EpochProgress(console=console, show_bar=True, started=0.0)
    run: Any = SimpleNamespace(is_global_zero=True, training=False)
    with caplog.at_level("INFO"):
        for number in (1, 2, 3):
            progress.drawing(run, number, 3)
    progress.teardown(run, run, "test")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("drawing figures 3/3" in shown) == is_terminal
    assert [record.getMessage() for record in caplog.records] == ([] if is_terminal else ["drawing 3 figures"])
