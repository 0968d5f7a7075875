"""Loading and augmenting without a net: from the prepared arrays to the input of the net."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from lightning import Trainer
from omegaconf import DictConfig
from torch import nn

from vitexp.bench.report import Row, Subject, paired_ratio
from vitexp.data.augment import SignsAugment
from vitexp.data.datamodule import ImageDataModule
from vitexp.runs.build import build_datamodule, build_module
from vitexp.system.cores import available_cores
from vitexp.system.hardware import choose_device
from vitexp.system.timing import time_in_turns
from vitexp.training.task import Task, to_unit_range

FILES = 2_000  # images that the standard pipeline reads
OURS, LIKE, THEIRS = "vitexp", "vitexp, rotation and shift only", "per-image pipeline"


def measure_loader(config: DictConfig) -> Subject:
    """Measure whole epochs of our loader and, with `peers`, of a standard pipeline on files of the same images."""
    device = choose_device(config.trainer.accelerator)
    datamodule, augment = ready_data(config)
    module = build_module(config, datamodule, augment).to(device)
    contestants = {OURS: _our_epoch(datamodule, module, module.augment, device)}
    with tempfile.TemporaryDirectory() as folder:
        if config.peers:
            # Only the augmentations of the standard pipeline.
            like = SignsAugment(rotation=15, translation=0.125, padding="zeros")
            contestants[LIKE] = _our_epoch(datamodule, module, like, device)
            contestants[THEIRS] = _their_epoch(datamodule, Path(folder), device)
        for epoch in contestants.values():
            epoch()  # starts the workers
        speeds = time_in_turns(contestants, repeats=config.repeats, device=device)
    return Subject(
        title=f"Loading and augmenting, no net: {config.data.name}, batch {config.data.batch_size}",
        unit="images/s",
        comparison="ratio",
        comparison_title="rotation and shift / this" if config.peers else "vitexp / this",
        rows=[
            Row(name=name, rounds=each, compared=paired_ratio(speeds[LIKE if config.peers else OURS], each))
            for name, each in speeds.items()
        ],
        facts={"worker_processes_of_peer": available_cores()} if config.peers else {},
    )


def ready_data(config: DictConfig) -> tuple[ImageDataModule, nn.Module]:
    """Return the data module, set up as in a run, and the augmentation on the device."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # do not print the devices
    datamodule, augment = build_datamodule(config)
    # The data module asks its trainer for the device.
    datamodule.trainer = Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    datamodule.setup()
    return datamodule, augment


def _our_epoch(
    datamodule: ImageDataModule, module: Task, augment: nn.Module, device: torch.device
) -> Callable[[], int]:
    loader = datamodule.train_dataloader()

    def epoch() -> int:
        images = 0
        with torch.no_grad():
            for batch, _ in loader:
                images += len(module.normalize(augment(to_unit_range(batch.to(device, non_blocking=True)))))
        return images

    return epoch


def _their_epoch(datamodule: ImageDataModule, folder: Path, device: torch.device) -> Callable[[], int]:
    from vitexp.bench.peers import ImageFiles, file_loader, write_files  # torchvision is slow to import

    files = write_files(datamodule.train_dataloader(), folder, count=FILES)
    dataset = ImageFiles(files=files, image_size=datamodule.image_size, mean=datamodule.mean, std=datamodule.std)
    cuda = device.type == "cuda"
    loader = file_loader(dataset, batch_size=datamodule.batch_size, workers=available_cores(), pin_memory=cuda)
    return lambda: sum(len(images.to(device, non_blocking=True)) for images, _ in loader)
