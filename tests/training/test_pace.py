"""The warning about a training that takes long."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vitexp.training.callbacks import pace
from vitexp.training.callbacks.pace import PaceWarning


def warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, seconds: float, slow: int = 0, epoch: int = 0
) -> str:
    """Return the warnings of 50 batches that take `seconds` each, in `epoch` of 10 planned ones of 100 batches.

    slow: after the first batch, that many take 2.5 s.
    """
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(pace, "finished", lambda device: now[0])
    monkeypatch.setattr(pace, "data_of", lambda trainer: SimpleNamespace(batch_size=32))
    trainer: Any = SimpleNamespace(
        num_training_batches=100, max_epochs=10, current_epoch=epoch, accumulate_grad_batches=1, is_global_zero=True
    )
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    callback = PaceWarning(advice="fewer patches")
    with caplog.at_level(logging.WARNING):
        for batch in range(50):
            now[0] += 60 if batch == 0 else 2.5 if batch <= slow else seconds  # the first one compiles
            callback.on_train_batch_end(trainer, module, None, None, batch)
    return caplog.text


def test_a_long_training_is_announced_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    text = warned(monkeypatch, caplog, seconds=4.0)  # measured from the fourth to the seventh batch
    assert text.count("images/s") == 1
    assert "at 8 images/s, training takes about 1 h 06 min; fewer patches; trainer.max_epochs=3 takes 20 min" in text


def test_a_short_one_is_not(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert warned(monkeypatch, caplog, seconds=1.0) == ""


def test_a_slow_start_does_not_count(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert warned(monkeypatch, caplog, seconds=0.5, slow=5) == ""


def test_a_resumed_one_is_not_told_to_be_shorter_than_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert warned(monkeypatch, caplog, seconds=4.0, epoch=4) == ""
