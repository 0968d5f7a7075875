"""From a source to batches: prepared arrays, validation split, statistics, loaders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.loading import ArrayDataset, BatchSampler
from vitexp.data.prepare import Prepared, prepare
from vitexp.data.source import DataError, Source
from vitexp.data.split import train_val_split

Batch = tuple[Tensor, Tensor]


class ImageDataModule(LightningDataModule):
    """Images in memory as uint8, served as batches (images uint8 [B, S, S, 3], labels int64 [B]).

    batch_size: images an optimizer step sees, on all devices and over all accumulated batches together.
    num_workers: processes that prepare, and that run a sample augmentation.
    sample_augment: applied image by image while loading; a batch augmentation belongs to the training step instead.
    After `setup`: classes, train, val and test (Prepared), mean and std (float32 [3], over the training part, of values
    in [0, 1]).
    """

    classes: list[str]
    train: Prepared
    val: Prepared
    test: Prepared
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def __init__(
        self,
        *,
        name: str,
        source: Source,
        prepare: Sequence[Any],
        image_size: int,
        batch_size: int,
        val_fraction: float,
        num_workers: int,
        cache_dir: Path,
        on_broken: Literal["refuse", "skip"],
        seed: int,
        sample_augment: AlbumentationsAugment | None = None,
    ) -> None:
        super().__init__()
        self.name, self.source, self.transforms = name, source, prepare
        self.image_size, self.batch_size, self.val_fraction = image_size, batch_size, val_fraction
        self.num_workers, self.cache_dir, self.on_broken, self.seed = num_workers, cache_dir, on_broken, seed
        self.sample_augment = sample_augment
        self.ready = False

    def setup(self, stage: str | None = None) -> None:
        """Read or make the arrays and cut validation off; a second call does nothing. Raises DataError."""
        if self.ready:
            return
        self.classes = self.source.classes
        everything, self.test = self._prepare("train"), self._prepare("test")
        self._refuse_unusable(everything)
        train, val = train_val_split(
            everything.labels, everything.groups, val_fraction=self.val_fraction, seed=self.seed
        )
        self.train, self.val = _part(everything, train), _part(everything, val)
        if self.batch_size > len(train):
            raise DataError(
                f"data.batch_size={self.batch_size} is larger than the training part of {len(train):,} images; "
                "choose a smaller one."
            )
        mean, mean_square = self.train.moments.mean(axis=0)
        self.mean = mean.astype(np.float32)
        self.std = np.sqrt(np.maximum(mean_square - mean**2, 1e-6)).astype(np.float32)
        self.ready = True

    def _prepare(self, split: Literal["train", "test"]) -> Prepared:
        return prepare(
            self.source.split(split),
            self.transforms,
            name=f"{self.name}-{split}",
            image_size=self.image_size,
            cache_dir=self.cache_dir,
            num_workers=self.num_workers,
            on_broken=self.on_broken,
        )

    def _refuse_unusable(self, everything: Prepared) -> None:
        if len(self.classes) < 2:
            raise DataError(f"{self.name} has one class only ({self.classes[0]}); a classifier needs two or more.")
        counts = np.bincount(everything.labels, minlength=len(self.classes))
        for label, count in enumerate(counts):
            if count < 2:
                has = "one training image only" if count else "no training image"
                raise DataError(f"class {self.classes[label]!r} of {self.name} has {has}; it needs two or more.")
        if not len(self.test.labels):
            raise DataError(f"{self.name} has no test images.")

    def train_dataloader(self) -> DataLoader[Batch]:
        sampler = self._sampler(self.train, shuffle=True, drop_last=True)
        return self._loader(self.train, sampler, self.sample_augment)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.val, self._sampler(self.val))

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.test, self._sampler(self.test))

    def _sampler(self, part: Prepared, *, shuffle: bool = False, drop_last: bool = False) -> BatchSampler:
        trainer = self.trainer
        rank, world_size, accumulated = 0, 1, 1
        if trainer is not None:
            rank, world_size, accumulated = trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches
        return BatchSampler(
            length=len(part.labels),
            batch_size=self.batch_size // accumulated,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )

    def _loader(
        self, part: Prepared, sampler: BatchSampler, augment: AlbumentationsAugment | None = None
    ) -> DataLoader[Batch]:
        dataset = ArrayDataset(images=part.images, labels=part.labels, transform=augment)
        workers = self.num_workers if augment is not None else 0  # an index select needs no worker
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=augment.worker_init_fn if augment is not None else None,
        )


def _part(everything: Prepared, indices: NDArray[np.int64]) -> Prepared:
    return Prepared(
        images=everything.images[indices],
        labels=everything.labels[indices],
        groups=everything.groups[indices],
        moments=everything.moments[indices],
    )


def available_workers(wanted: int | Literal["auto"]) -> int:
    """`wanted`, or for "auto" one process a core that this process may use, at most 8."""
    if wanted != "auto":
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)
