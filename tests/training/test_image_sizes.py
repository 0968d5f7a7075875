"""Training at several image sizes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from tests.conftest import result, tiny_run
from vitexp.models import ViT
from vitexp.training.classification import Classifier
from vitexp.training.losses import CrossEntropy
from vitexp.training.mixing import Mixing
from vitexp.training.schedules import Constant

SIZES = [8, 16, 24]
STEPS = 12


def sides(*, seed: int = 0, image_sizes: list[int] | None = SIZES) -> tuple[list[int], list[int]]:
    """Return the pixels per side of the images that the net sees in two epochs of training and validation."""
    net = ViT(num_classes=3, image_size=16, patch_size=8, dim=8, depth=1, num_heads=1)
    seen: tuple[list[int], list[int]] = ([], [])
    net.register_forward_pre_hook(lambda net, given: seen[not net.training].append(given[0].shape[-1]))
    module = Classifier(
        net=net,
        num_classes=3,
        augment=nn.Identity(),
        mixing=Mixing(mixup_alpha=0.5, cutmix_alpha=0.5),
        optimizer=partial(SGD, lr=0.01),
        schedule=Constant(warmup_epochs=0),
        seed=seed,
        loss=CrossEntropy(label_smoothing=0.0),
        mean=np.zeros(3, np.float32),
        std=np.ones(3, np.float32),
        image_sizes=image_sizes,
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    batch = torch.zeros(4, 16, 16, 3, dtype=torch.uint8), torch.tensor([0, 1, 2, 0])
    train, val = (DataLoader([batch] * batches, batch_size=None) for batches in (STEPS, 1))  # type: ignore[arg-type,var-annotated]
    trainer.fit(module, train, val)
    return seen


def test_each_training_batch_draws_a_size_and_validation_keeps_the_data_size() -> None:
    train, val = sides()
    assert len(train) == 2 * STEPS
    assert set(train) == set(SIZES)
    assert train[:STEPS] != train[STEPS:]
    assert set(val) == {16}
    assert sides() == (train, val)
    assert sides(seed=1)[0] != train


def test_without_sizes_all_images_keep_their_size() -> None:
    train, val = sides(image_sizes=None)
    assert set(train) == set(val) == {16}


def test_a_run_reports_the_cost_of_the_sizes(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "training.image_sizes=[16,32]", "callbacks=none")
    assert result(run)["status"] == "completed"
    assert (
        "images of 16, 32 pixels, one size drawn per batch (0.62 times the patches)" in (run / "train.log").read_text()
    )
