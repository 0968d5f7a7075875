"""Albumentations in DataLoader workers: seeded, the same for any number of workers, and strict about arguments."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from tests.conftest import CONF
from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.loading import ArrayDataset, BatchSampler
from vitexp.data.prepare import Prepared
from vitexp.data.transforms import build_transforms

NOISE = [{"_target_": "albumentations.GaussNoise", "std_range": [0.2, 0.3], "p": 1.0}]


def two_epochs(seed: int, *, workers: int, persistent: bool = False) -> list[Tensor]:
    """Return two epochs of eight equal gray images, uint8 [8, 8, 8, 3] each: any difference was drawn."""
    grey = np.full((8, 8, 8, 3), 128, np.uint8)
    numbers = np.arange(8)
    images = Prepared(stored=grey, rows=numbers, labels=numbers, groups=numbers, moments=np.zeros((8, 2, 3)))
    sampler = BatchSampler(length=8, batch_size=2, seed=seed)
    loader = DataLoader(
        ArrayDataset(images, augment=AlbumentationsAugment(transforms=NOISE)),
        sampler=sampler,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=AlbumentationsAugment.worker_init_fn,
        persistent_workers=persistent,
    )
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(torch.cat([drawn for drawn, _ in loader]))
    return epochs


def test_draws_depend_on_seed_and_epoch_but_not_on_the_number_of_workers() -> None:
    alone = torch.cat(two_epochs(1, workers=0))
    for workers, persistent in ((2, False), (2, True), (3, True)):
        assert torch.equal(torch.cat(two_epochs(1, workers=workers, persistent=persistent)), alone)
    images = torch.cat([alone, *two_epochs(2, workers=0)]).flatten(1)
    # No two images, epochs or seeds give the same draws.
    assert len(np.unique(images.numpy(), axis=0)) == 32


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can end a process with its parent")
def test_workers_exit_with_the_training_process() -> None:
    """A worker that outlives it would hold the lock of its run folder."""
    program = """
import os, signal, sys
from tests.data.test_augment_sample import slow_loader
batches = iter(slow_loader())
next(batches)
print(*[worker.pid for worker in batches._workers], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", program], cwd=CONF.parent, capture_output=True, text=True)
    workers = [int(pid) for pid in process.stdout.split()]
    assert process.returncode == -signal.SIGKILL
    assert len(workers) == 2
    time.sleep(0.5)
    assert not [pid for pid in workers if Path(f"/proc/{pid}/cmdline").exists() and _is_running(pid)]


def _is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"


def slow_loader() -> DataLoader[tuple[Tensor, Tensor]]:
    images = Prepared(
        stored=np.zeros((64, 8, 8, 3), np.uint8),
        **dict.fromkeys(("rows", "labels", "groups"), np.arange(64)),
        moments=np.zeros((64, 2, 3)),
    )
    return DataLoader(
        ArrayDataset(images, augment=AlbumentationsAugment(transforms=NOISE)),
        sampler=BatchSampler(length=64, batch_size=2),
        batch_size=None,
        num_workers=2,
        worker_init_fn=AlbumentationsAugment.worker_init_fn,
    )


def test_transforms_draw_independently() -> None:
    """Two transforms of probability 1/2 are both applied to a quarter of the images, not to half of them."""
    augment = AlbumentationsAugment(
        transforms=[{"_target_": f"albumentations.{name}Flip", "p": 0.5} for name in ("Horizontal", "Vertical")]
    )
    augment.reseed([0])
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    corners = [int(augment(image)[0, 0, 0]) for _ in range(200)]
    assert all(30 < corners.count(corner) < 70 for corner in range(4))


def test_the_input_image_is_not_changed() -> None:
    image: NDArray[np.uint8] = np.full((8, 8, 3), 128, np.uint8)
    AlbumentationsAugment(transforms=NOISE)(image)
    assert (image == 128).all()


@pytest.mark.parametrize(
    "config",
    [
        {"_target_": "albumentations.CLAHE", "clip_limits": 2},
        {"_target_": "albumentations.CLAHE", "p": 3},
        {"_target_": "albumentations.Claheh"},
        {"clip_limits": 2},
        {"_target_": "builtins.dict", "clip_limits": 2},
        {"_target_": "albumentations.OneOf", "transforms": [{"_target_": "albumentations.CLAHE", "clip_limits": 2}]},
    ],
)
def test_wrong_arguments_are_errors(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"clip_limits|\bp\b|Claheh"):
        build_transforms([config])


def test_transforms_already_built_are_accepted() -> None:
    built = build_transforms([{"_target_": "albumentations.CLAHE", "clip_limit": [2, 2], "p": 1}])
    assert build_transforms(built) == built
    assert getattr(built[0], "clip_limit", None) == (2, 2)


def test_a_pipeline_must_keep_shape_and_dtype() -> None:
    augment = AlbumentationsAugment(transforms=[{"_target_": "albumentations.Resize", "height": 4, "width": 4}])
    with pytest.raises(ValueError, match=r"\[8, 8, 3\] into uint8 \[4, 4, 3\]"):
        augment(np.zeros((8, 8, 3), np.uint8))
