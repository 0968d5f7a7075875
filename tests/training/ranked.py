"""One of several processes that train and measure together; test_exact_numbers.py starts and compares them.

python ranked.py RANK FOLDER, with `asked.json` in FOLDER; writes `<world size>-<rank>.pt` there for every world size.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.optim import SGD, Optimizer

from vitexp.data.datamodule import ImageDataModule
from vitexp.data.prepare import Prepared
from vitexp.models.vit import ViT
from vitexp.training.classification import Classifier
from vitexp.training.masked_autoencoding import MaskedAutoencoding
from vitexp.training.schedules import CosineWarmup

CLASSES, PIXELS, BATCH = 7, 8, 12
TRAIN, EPOCHS = 57, 2  # 4 steps of 12 per epoch; the 9 images left over would fill one of two accumulated halves


def noise(length: int) -> Prepared:
    random = np.random.default_rng(length)
    stored = random.integers(0, 256, (length, PIXELS, PIXELS, 3), dtype=np.uint8)
    numbers, moments = np.arange(length), np.zeros((length, 2, 3))
    labels = random.integers(0, CLASSES, length)
    return Prepared(stored=stored, rows=numbers, labels=labels, groups=numbers, moments=moments)


def data(measured: int, *, resident: str = "auto") -> ImageDataModule:
    """Return noise images: TRAIN for training, and `measured` each for validation and test."""
    made: Any = ImageDataModule(
        name="noise",
        source=None,  # type: ignore[arg-type]
        prepare=(),
        image_size=PIXELS,
        batch_size=BATCH,
        val_fraction=0.1,
        num_workers=0,
        resident=resident,  # type: ignore[arg-type]
        cache_dir=Path(),
        on_broken="refuse",
        seed=3,
    )
    made.train, made.val, made.test, made.ready = noise(TRAIN), noise(measured), noise(measured), True
    return made


def vit() -> nn.Module:
    """Return a ViT without dropout, with the same weights every time."""
    seed_everything(0, verbose=False)
    net = ViT(num_classes=CLASSES, image_size=PIXELS, patch_size=4, dim=16, depth=2, num_heads=2)
    with torch.no_grad():
        net.head.weight.normal_(std=1.0)  # otherwise all probabilities would be nearly equal
    return net


def normalized_by_batch() -> nn.Module:
    """Return a net with batch norm, whose running statistics depend on the images its process saw."""
    seed_everything(0, verbose=False)
    pixels = 3 * PIXELS**2
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(pixels), nn.Linear(pixels, CLASSES))


def classifier(net: nn.Module, *, lr: float) -> Classifier:
    """Return a classifier without augmentation or mixing."""
    return Classifier(
        net=net,
        num_classes=CLASSES,
        augment=nn.Identity(),
        optimizer=partial(SGD, lr=lr, momentum=0.9),
        schedule=CosineWarmup(warmup_epochs=0.5, min_lr=0.0),
        seed=0,
        mean=np.full(3, 0.5, np.float32),
        std=np.full(3, 0.25, np.float32),
    )


class LearningRates(Callback):
    """A callback that records the learning rate of every optimizer step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


def trainer(world_size: int, **arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,
        **arguments,
    )


def measured(world_size: int, size: int) -> dict[str, Any]:
    """Return the results for `size` images of a test and of a validation in training, with a negligible lr."""
    module, images = classifier(vit(), lr=1e-30), data(size, resident="memory" if size % 2 else "device")
    running = trainer(world_size, max_epochs=1, limit_train_batches=1)
    running.fit(module, datamodule=images)
    val = {name: float(value) for name, value in running.callback_metrics.items() if name.startswith("val/")}
    counted = len(module.predictions[1])
    [test] = running.test(module, datamodule=images, verbose=False)
    return {"val": val, "val_count": counted, "test": test, "predictions": module.predictions}


def completed(world_size: int, size: int) -> dict[str, Any]:
    """Return what pretraining measures on `size` images, each with its own mask."""
    seed_everything(0, verbose=False)
    encoder = ViT(num_classes=CLASSES, image_size=PIXELS, patch_size=2, dim=16, depth=2, num_heads=2)
    module = MaskedAutoencoding(
        net=encoder,
        decoder_dim=8,
        decoder_depth=1,
        decoder_heads=2,
        augment=nn.Identity(),
        optimizer=partial(SGD, lr=1e-30),
        schedule=CosineWarmup(warmup_epochs=0.5, min_lr=0.0),
        seed=0,
        mean=np.full(3, 0.5, np.float32),
        std=np.full(3, 0.25, np.float32),
    )
    images, running = data(size), trainer(world_size, max_epochs=1, limit_train_batches=1)
    running.fit(module, datamodule=images)
    val = float(running.callback_metrics["val/loss"])
    [test] = running.test(module, datamodule=images, verbose=False)
    return {"val": val, "test": test["test/loss"], "count": module.images_measured}


def trained(world_size: int, accumulated: int) -> dict[str, Any]:
    """Return learning rates, number of steps and final weights of a training."""
    module, rates = classifier(vit(), lr=0.05), LearningRates()
    running = trainer(
        world_size,
        max_epochs=EPOCHS,
        accumulate_grad_batches=accumulated,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        callbacks=[rates],
    )
    running.fit(module, datamodule=data(1))
    told = {name: float(value) for name, value in running.callback_metrics.items()}
    return {"lr": rates.seen, "steps": running.global_step, "weights": module.net.state_dict(), "train": told}


def tested_as_trained(world_size: int) -> dict[str, Any]:
    """Return probabilities and buffers after training without a checkpoint that all processes could load."""
    module, images = classifier(normalized_by_batch(), lr=0.05), data(5)
    running = trainer(world_size, max_epochs=1, limit_val_batches=0)
    running.fit(module, datamodule=images)
    running.test(module, datamodule=images, verbose=False)
    return {"predictions": module.predictions, "buffers": dict(module.net.named_buffers())}


def main(rank: int, folder: Path) -> None:
    asked = json.loads((folder / "asked.json").read_text())
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for world_size, port in zip(asked["world_sizes"], asked["ports"], strict=True):
        if rank >= world_size:
            continue
        os.environ.update(LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        told = {
            "measured": {size: measured(world_size, size) for size in asked["sizes"]},
            "completed": {size: completed(world_size, size) for size in asked["sizes"]},
            "tested_as_trained": tested_as_trained(world_size),
            "trained": {accumulated: trained(world_size, accumulated) for accumulated in (1, 2)},
        }
        torch.save(told, folder / f"{world_size}-{rank}.pt")
        if world_size > 1:
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
