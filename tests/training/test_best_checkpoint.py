"""BestCheckpoint: which epoch it keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from vitexp.training.best_checkpoint import BestCheckpoint


def choose(best: BestCheckpoint, *epochs: tuple[float, float]) -> list[bool]:
    """Return whether each epoch, given as (accuracy, loss), becomes the best."""
    chosen = []
    for accuracy, loss in epochs:
        metrics = {"val/accuracy": torch.tensor(accuracy), "val/loss": torch.tensor(loss)}
        trainer: Any = SimpleNamespace(callback_metrics=metrics, strategy=SimpleNamespace(reduce_boolean_decision=bool))
        chosen.append(best.check_monitor_top_k(trainer, metrics["val/accuracy"]))
        if chosen[-1]:  # as Lightning does after saving
            best.best_k_models = {"best.ckpt": metrics["val/accuracy"]}
            best.kth_best_model_path, best.best_model_score = "best.ckpt", metrics["val/accuracy"]
    return chosen


def test_ties_are_broken_by_the_loss(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    epochs = [(0.5, 1.0), (0.5, 1.1), (0.5, 0.9), (0.4, 0.1), (0.6, 2.0), (0.6, 1.9), (0.6, 1.95)]
    assert choose(best, *epochs) == [True, False, True, False, True, True, False]


def test_the_loss_survives_a_restart(tmp_path: Path) -> None:
    first = BestCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    choose(first, (0.5, 1.0))
    resumed = BestCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    resumed.load_state_dict(first.state_dict())
    assert choose(resumed, (0.5, 1.1), (0.5, 0.9)) == [False, True]


def test_checkpoints_of_earlier_versions_know_it_by_lightnings_name(tmp_path: Path) -> None:
    assert BestCheckpoint(tmp_path, monitor="val/loss", mode="min").state_key.startswith("ModelCheckpoint{")
