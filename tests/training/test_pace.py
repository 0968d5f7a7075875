"""How long a training takes, said once, and the warning about one that takes long."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vitexp.training.callbacks import pace
from vitexp.training.callbacks.pace import Pace


def warned(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    seconds: float,
    slow: int = 0,
    epoch: int = 0,
    warns: bool = True,
) -> str:
    """Return what is said in 50 batches that take `seconds` each, in `epoch` of 10 planned ones of 100 batches.

    slow: after the first batch, that many take 2.5 s.
    """
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(pace, "finished", lambda device: now[0])
    monkeypatch.setattr(pace, "data_of", lambda trainer: SimpleNamespace(batch_size=32))
    trainer: Any = SimpleNamespace(
        num_training_batches=100,
        max_epochs=10,
        current_epoch=epoch,
        accumulate_grad_batches=1,
        is_global_zero=True,
        estimated_stepping_batches=1000,
        callbacks=[],
    )
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    callback = Pace(warns=warns, advice="fewer patches")
    with caplog.at_level(logging.INFO):
        for batch in range(50):
            now[0] += 60 if batch == 0 else 2.5 if batch <= slow else seconds  # the first one compiles
            trainer.global_step = 100 * epoch + batch + 1
            callback.on_train_batch_end(trainer, module, None, None, batch)
    return caplog.text


def test_a_long_training_is_announced_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    text = warned(monkeypatch, caplog, seconds=4.0)  # measured from the fourth to the seventh batch
    assert text.count("images/s") == 1
    assert "at 8 images/s, training takes about 1 h 06 min; fewer patches; trainer.max_epochs=3 takes 20 min" in text


def test_a_short_one_is_not(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    text = warned(monkeypatch, caplog, seconds=1.0)  # measured from step 11 to step 21
    assert text.count("INFO") == 1 and "at 32 images/s, 16 min 19 s left\n" in text


def test_a_slow_start_does_not_count(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    text = warned(monkeypatch, caplog, seconds=0.5, slow=5)
    assert "training takes" not in text and "at 51.2 images/s, 10 min 12 s left" in text


def test_a_resumed_one_is_not_told_to_be_shorter_than_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert "trainer.max_epochs" not in warned(monkeypatch, caplog, seconds=4.0, epoch=4)


def test_a_length_that_was_asked_for_is_only_stated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = warned(monkeypatch, caplog, seconds=4.0, warns=False)
    assert "WARNING" not in text and "at 8 images/s, 1 h 06 min left\n" in text


def test_nothing_is_said_about_a_training_that_is_soon_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert warned(monkeypatch, caplog, seconds=0.1) == ""
