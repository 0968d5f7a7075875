"""From a source to batches: prepared arrays, validation split, statistics, loaders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.loading import ArrayDataset, BatchSampler, ResidentBatches
from vitexp.data.prepare import Prepared, prepare
from vitexp.data.source import DataError, Source
from vitexp.data.split import train_val_split

Batch = tuple[Tensor, Tensor]
Batches = DataLoader[Batch] | ResidentBatches
Resident = Literal["auto", "device", "memory"]


class ImageDataModule(LightningDataModule):
    """Images as uint8, served as batches (images uint8 [B, S, S, 3], labels int64 [B]).

    prepare: configs of Albumentations transforms (prepare.py).
    batch_size: images an optimizer step sees, on all devices and over all accumulated batches together.
    num_workers: processes that prepare, and that run a sample augmentation.
    resident: whether all images lie on the training device ("device") or batches are copied to it ("memory"); "auto"
    is the device where they take at most half of its free memory.
    sample_augment: applied image by image while loading; a batch augmentation belongs to the training step instead.
    normalization: mean and std to normalize by, [3] each, of values in [0, 1]; None for those of the training part.
    After `setup`: classes, train, val and test (Prepared), mean and std (float32 [3]).
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
        prepare: Sequence[Mapping[str, Any]],
        image_size: int,
        batch_size: int,
        val_fraction: float,
        num_workers: int,
        resident: Resident,
        cache_dir: Path,
        on_broken: Literal["refuse", "skip"],
        seed: int,
        sample_augment: AlbumentationsAugment | None = None,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.source, self.transforms = name, source, prepare
        self.image_size, self.batch_size, self.val_fraction = image_size, batch_size, val_fraction
        self.num_workers, self.cache_dir, self.on_broken, self.seed = num_workers, cache_dir, on_broken, seed
        self.resident, self.sample_augment, self.normalization = resident, sample_augment, normalization
        self._on_device: dict[int, Tensor] = {}
        self._begin_at: dict[str, int] = {"epoch": 0, "images": 0}
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
        self.train, self.val = everything.part(train), everything.part(val)
        if self.batch_size > len(train):
            raise DataError(
                f"data.batch_size={self.batch_size} is larger than the training part of {len(train):,} images; "
                "choose a smaller one."
            )
        mean, mean_square = self.train.moments.mean(axis=0)
        std = np.sqrt(np.maximum(mean_square - mean**2, 1e-6))
        self.mean, self.std = (np.asarray(each, np.float32) for each in self.normalization or (mean, std))
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

    def begin_at(self, *, epoch: int, images: int) -> None:
        """Let the training begin within `epoch`, after `images` of all devices together."""
        self._begin_at = {"epoch": epoch, "images": images}

    @cached_property
    def fingerprint(self) -> str:
        """Of the training part and its order: other images, labels or classes make another one."""
        digest = hashlib.sha256(self.train.labels.tobytes() + self.train.moments.tobytes())
        digest.update("\0".join(self.classes).encode(errors="surrogateescape"))
        return digest.hexdigest()[:12]

    def train_dataloader(self) -> Batches:
        sampler = self._sampler(self.train, shuffle=True, drop_last=True)
        sampler.begin_at(**self._begin_at)
        return self._batches(self.train, sampler, self.sample_augment)

    def val_dataloader(self) -> Batches:
        return self._batches(self.val, self._sampler(self.val))

    def test_dataloader(self) -> Batches:
        return self._batches(self.test, self._sampler(self.test))

    def _sampler(self, part: Prepared, *, shuffle: bool = False, drop_last: bool = False) -> BatchSampler:
        trainer = self.trainer
        rank, world_size, accumulated = 0, 1, 1
        if trainer is not None:
            rank, world_size, accumulated = trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches
        return BatchSampler(
            length=len(part.labels),
            batch_size=self.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            accumulated=accumulated,
        )

    def _batches(self, part: Prepared, sampler: BatchSampler, augment: AlbumentationsAugment | None = None) -> Batches:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if augment is None and self._is_resident(device):
            return ResidentBatches(
                stored=self._stored(part, device),
                rows=torch.from_numpy(part.rows).to(device),
                labels=torch.from_numpy(part.labels).to(device),
                sampler=sampler,
            )
        workers = self.num_workers if augment is not None else 0  # an index select needs no worker
        return DataLoader(
            ArrayDataset(part, augment=augment),
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            worker_init_fn=augment.worker_init_fn if augment is not None else None,
        )

    def _is_resident(self, device: torch.device) -> bool:
        size = self.train.stored.nbytes + self.test.stored.nbytes
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        held = sum(stored.nbytes for stored in self._on_device.values())
        if self.resident == "device" and free is not None and size - held > free:
            raise DataError(
                f"data.resident=device needs {size / 1e9:.1f} GB on the device, of which {free / 1e9:.1f} GB are free; "
                "data.resident=memory copies batch by batch."
            )
        if self.resident != "auto":
            return self.resident == "device"
        # on the CPU the memory map is all there is to hold
        return device.type == "cpu" or (free is not None and size - held <= free / 2)

    def _stored(self, part: Prepared, device: torch.device) -> Tensor:
        """The stored images of `part` on `device`; training and validation have the same."""
        key = id(part.stored)
        if key not in self._on_device:
            self._on_device[key] = torch.from_numpy(part.stored).to(device)
        return self._on_device[key]


def available_workers(wanted: int | Literal["auto"]) -> int:
    """`wanted`, or for "auto" one process a core that this process may use, at most 8."""
    if wanted != "auto":
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)
