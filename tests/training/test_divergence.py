"""A loss that is not finite names the layer where it started; optional norms."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from tests.conftest import TINY, composed, tiny_run
from vitexp.runs.rehearsal import build_parts
from vitexp.training.callbacks.divergence import NonFiniteLoss, StopOnNonFiniteLoss
from vitexp.training.task import Task


def fit(module: Task, data: Any, **settings: Any) -> None:
    trainer = Trainer(
        max_steps=3,
        accelerator="cpu",
        callbacks=[StopOnNonFiniteLoss()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, datamodule=data)


def test_the_first_layer_is_named() -> None:
    data, module = build_parts(composed(*TINY, "augment=signs"))
    with torch.no_grad():
        module.net.blocks[1].mlp.fc1.weight.fill_(3e38)  # type: ignore[index, union-attr]
    with pytest.raises(
        NonFiniteLoss, match=r"since step 1 .*, first in the output of blocks\.1\.mlp\.fc1; try a lower"
    ):
        fit(module, data)


def test_a_loss_function_is_named() -> None:
    data, module = build_parts(composed(*TINY))
    learn = module.learn
    module.learn = lambda *batch: (learn(*batch)[0] * math.nan, *learn(*batch)[1:])  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLoss, match=r"since step 1 .*, first in the loss function"):
        fit(module, data)


@pytest.mark.parametrize(("clip", "place"), [(1.0, "the network"), (None, r"blocks\.0\.attn\.proj\.weight")])
def test_gradients_are_named(clip: float | None, place: str) -> None:
    """They become NaN although the loss is finite; clipping by the norm spreads that to all weights."""
    data, module = build_parts(composed(*TINY))
    broken = module.net.blocks[0].attn.proj.weight  # type: ignore[index, union-attr]
    broken.register_hook(lambda gradient: gradient * math.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(NonFiniteLoss, match=f"since step 2 .*, first in the gradients of {place}, one step before"):
        fit(module, data, gradient_clip_val=clip)


def test_norms_are_those_of_gradients_weights_and_updates(tmp_path: Path) -> None:
    words = ("+callbacks=[none,norms]", "trainer.log_every_n_steps=2", "optim=sgd", "optim.momentum=0", "optim.lr=0.1")
    words = (
        *words,
        "optim.weight_decay=0",
        "schedule=constant",
        "schedule.warmup_epochs=0",
        "trainer.precision=32-true",
    )
    folder = tiny_run(tmp_path, *(word.removeprefix("+") for word in words), "optim.nesterov=false")
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/gradient_norm"]]
    assert [int(row["step"]) for row in rows] == [1, 3]
    for row in rows:
        gradient, weight, ratio = (
            float(row[f"train/{name}"]) for name in ("gradient_norm", "weight_norm", "update_ratio")
        )
        assert ratio == pytest.approx(0.1 * min(gradient, 1.0) / weight, rel=1e-3)  # clipped to 1
