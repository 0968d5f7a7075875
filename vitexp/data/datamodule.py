"""From a source to batches: prepared arrays, validation split, statistics, loaders."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.length import AUTO, automatic_batch_size
from vitexp.data.loading import ArrayDataset, BatchSampler, ResidentBatches, WorkerLoader
from vitexp.data.parts import refuse_unusable_classes, too_few_images
from vitexp.data.prepare import OnBroken, Prepared, prepare
from vitexp.data.source import BrokenImages, DataError, Source, Split, refuse
from vitexp.data.split import fold_split, refuse_unusable_folds, train_val_split
from vitexp.system.cores import available_cores

Batch = tuple[Tensor, Tensor]
Batches = WorkerLoader | ResidentBatches


class ImageDataModule(LightningDataModule):
    """Images as uint8, served as batches (images uint8 [B, S, S, 3], labels int64 [B]).

        data = ImageDataModule(source=Folder(root="photos"), image_size=64)
        data.setup()
        data.classes, data.mean, data.std

    With your own Trainer on several devices, pass it `use_distributed_sampler=False`: the batches here are already
    divided among the processes, and no image is repeated.

    source: the data set.
    name: for folder names in the cache and for messages; by default the class of the source.
    prepare: configs of deterministic Albumentations transforms (prepare.py); by default one that resizes to image_size.
    image_size: S, pixels per side.
    batch_size: images per optimizer step, on all devices and over all accumulated batches together; "auto": chosen by
    `setup` from the number of training images (length.py).
    val_fraction: fraction of the training images, per class, that become the validation part; groups stay whole. Not
    used if the source has a validation split of its own.
    folds, fold: instead of val_fraction, divide the training images into this many folds, groups whole and classes
    balanced; fold number `fold`, from 0, becomes the validation part.
    sampler: "shuffle" visits each training image once per epoch; "balanced" draws as many images with replacement,
    every class equally often.
    num_workers: processes that prepare images and run a sample augmentation; "auto": see `available_workers`.
    resident: keep all images on the training device ("device"), or in memory and copy batch by batch ("memory"); "auto"
    uses the device if they fill at most half of its free memory.
    cache_dir: folder of the prepared arrays.
    on_broken: "refuse" a data set with an unreadable file, or "skip" the file.
    seed: decides the validation split and the order of training images.
    sample_augment: applied per image while loading. A batch augmentation belongs to the training step instead.
    normalization: mean and std of values in [0, 1], [3] each; by default those of the training part.

    After `setup`: classes, train, val, test (Prepared), batch_size, mean and std (float32 [3]).
    """

    classes: list[str]
    train: Prepared
    val: Prepared
    test: Prepared
    batch_size: int
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def __init__(
        self,
        *,
        source: Source,
        name: str | None = None,
        prepare: Sequence[Mapping[str, Any]] | None = None,
        image_size: int = 32,
        batch_size: int | Literal["auto"] = AUTO,
        val_fraction: float = 0.1,
        folds: int | None = None,
        fold: int = 0,
        sampler: Literal["shuffle", "balanced"] = "shuffle",
        num_workers: int | Literal["auto"] = "auto",
        resident: Literal["auto", "device", "memory"] = "auto",
        cache_dir: str | Path = "~/.cache/vitexp",
        on_broken: OnBroken = "refuse",
        seed: int = 0,
        sample_augment: AlbumentationsAugment | None = None,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.name: str = type(source).__name__.lower() if name is None else name
        self.transforms = resize_to(image_size) if prepare is None else prepare
        self.image_size = image_size
        self.val_fraction, self.folds, self.fold = val_fraction, folds, fold
        self.chooses_batch_size = batch_size == AUTO
        if batch_size != AUTO:
            self.batch_size = batch_size
        self.sampler, self.resident, self.on_broken, self.seed = sampler, resident, on_broken, seed
        self.num_workers, self.cache_dir = available_workers(num_workers), Path(cache_dir).expanduser()
        self.sample_augment, self.normalization = sample_augment, normalization
        self._on_device: dict[int, Tensor] = {}
        self._start = {"epoch": 0, "images": 0}
        self.ready = False

    def setup(self, stage: str | None = None) -> None:
        """Read or prepare the arrays and split off validation; a second call does nothing. Raises DataError."""
        if self.ready:
            return
        self.classes = self.source.classes
        official = self.source.validation()
        splits = {"train": self.source.split("train"), "test": self.source.split("test")}
        prepared = self._prepare(splits if official is None else {**splits, "val": official})
        everything, self.test = prepared["train"], prepared["test"]
        self._refuse_unusable(prepared)
        if self.folds is not None:
            refuse_unusable_folds(
                self.folds,
                has_validation=official is not None,
                labels=everything.labels,
                groups=everything.groups,
                classes=self.classes,
            )
        if official is None:
            train, val = self._split(everything)
            self.train, self.val = everything.part(train), everything.part(val)
        else:
            self.train, self.val = everything, prepared["val"]
        if self.chooses_batch_size:
            self.batch_size = automatic_batch_size(len(self.train))
        if self.batch_size > len(self.train):
            raise DataError(
                f"data.batch_size={self.batch_size} is larger than the training part of {len(self.train):,} images; "
                "choose a smaller one."
            )
        mean, mean_square = self.train.moments.mean(axis=0)
        std = np.sqrt(np.maximum(mean_square - mean**2, 1e-6))
        self.mean, self.std = (np.asarray(each, np.float32) for each in self.normalization or (mean, std))
        self.ready = True

    def _split(self, images: Prepared) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the indices of the training and the validation part."""
        if self.folds is None:
            return train_val_split(images.labels, images.groups, val_fraction=self.val_fraction, seed=self.seed)
        return fold_split(images.labels, images.groups, folds=self.folds, fold=self.fold, seed=self.seed)

    def _prepare(self, splits: Mapping[str, Split]) -> dict[str, Prepared]:
        """Return the prepared images of each split. Raises BrokenImages, which counts the unreadable files of all."""
        prepared, broken = {}, list[BrokenImages]()
        for name, split in splits.items():
            try:
                prepared[name] = prepare(
                    split,
                    self.transforms,
                    name=f"{self.name}-{name}",
                    image_size=self.image_size,
                    cache_dir=self.cache_dir,
                    num_workers=self.num_workers,
                    on_broken=self.on_broken,
                )
            except BrokenImages as error:
                broken.append(error)
        if broken:
            errors = [each for error in broken for each in error.errors]
            raise BrokenImages(errors, total=sum(map(len, splits.values())))
        return prepared

    def _refuse_unusable(self, parts: Mapping[str, Prepared]) -> None:
        """Raise DataError for unusable classes or labels. parts: train, test and perhaps val."""
        refuse_unusable_classes(self.classes, name=self.name)
        for part in parts.values():
            if len(part) and not 0 <= part.labels.min() <= part.labels.max() < len(self.classes):
                raise DataError(
                    f"{self.name} has labels from {part.labels.min()} to {part.labels.max()}, but "
                    f"{len(self.classes)} classes; labels must be from 0 to {len(self.classes) - 1}."
                )
        counts = np.bincount(parts["train"].labels, minlength=len(self.classes)).tolist()
        few = too_few_images(
            dict(zip(self.classes, counts, strict=True)),
            where=f"the training part of {self.name}",
            split_off=() if "val" in parts else ("validation",),
        )
        names = {"val": "validation", "test": "test"}
        empty = [name for part, name in names.items() if part in parts and not len(parts[part])]
        refuse([few, f"{self.name} has no {' and no '.join(empty)} images" if empty else ""])

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Number of training images per class, validation excluded: int64 [classes]."""
        return np.bincount(self.train.labels, minlength=len(self.classes))

    @property
    def imbalance(self) -> float:
        """Number of training images of the largest class divided by that of the smallest."""
        return float(self.class_counts.max() / self.class_counts.min())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the training part and its order: it changes with the images, labels and classes.

        Also of an official validation part; otherwise the training part determines it.
        """
        train = self.train.fingerprint(self.classes)
        if self.val.stored is self.train.stored:
            return train
        return hashlib.sha256(f"{train} {self.val.fingerprint(self.classes)}".encode()).hexdigest()[:12]

    def shuffle(self, part: Literal["val", "test"]) -> None:
        """Put the images of a part into a random order, always the same, so that its first batches have all classes."""
        images: Prepared = getattr(self, part)
        setattr(self, part, images.part(np.random.default_rng(0).permutation(len(images))))

    @property
    def stored_bytes(self) -> int:
        """Size of all prepared images; training and validation are stored together if one is split from the other."""
        return sum({id(part.stored): part.stored.nbytes for part in (self.train, self.val, self.test)}.values())

    def begin_at(self, *, epoch: int, images: int) -> None:
        """Start training within `epoch`, after its first `images`, counted over all devices."""
        self._start = {"epoch": epoch, "images": images}

    def train_dataloader(self) -> Batches:
        labels = self.train.labels if self.sampler == "balanced" else None
        sampler = self._sampler(self.train, shuffle=True, balance=labels, drop_last=True)
        sampler.begin_at(**self._start)
        return self._batches(self.train, sampler, self.sample_augment)

    def val_dataloader(self) -> Batches:
        return self._batches(self.val, self._sampler(self.val))

    def test_dataloader(self) -> Batches:
        return self._batches(self.test, self._sampler(self.test))

    def _sampler(self, part: Prepared, **options: Any) -> BatchSampler:
        trainer = self.trainer
        if trainer is not None:
            options |= {
                "rank": trainer.global_rank,
                "world_size": trainer.world_size,
                "accumulated": trainer.accumulate_grad_batches,
            }
        return BatchSampler(length=len(part), batch_size=self.batch_size, seed=self.seed, **options)

    def _batches(self, part: Prepared, sampler: BatchSampler, augment: AlbumentationsAugment | None = None) -> Batches:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if augment is None and self._is_resident(device):
            return ResidentBatches(
                stored=self._stored(part, device),
                rows=torch.from_numpy(part.rows).to(device),
                labels=torch.from_numpy(part.labels).to(device),
                sampler=sampler,
            )
        num_workers = self.num_workers if augment is not None else 0  # an index select needs no worker
        if num_workers:
            self._refuse_little_shared_memory(num_workers, batch_size=sampler.batch_size // sampler.world_size)
        return WorkerLoader(
            ArrayDataset(part, augment=augment),
            sampler=sampler,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
        )

    def _refuse_little_shared_memory(self, num_workers: int, *, batch_size: int) -> None:
        """Raise DataError if the batches that wait for training do not fit; workers would be killed or wait forever."""
        shared = Path("/dev/shm")  # noqa: S108 - only its size is read
        if not shared.is_dir():
            return
        waiting = 2 * num_workers + 1  # torch prefetches two per worker
        needed, free = waiting * batch_size * self.image_size**2 * 3, shutil.disk_usage(shared).free
        if needed > free:
            raise DataError(
                f"data.num_workers={num_workers} needs {needed / 1e6:.0f} MB of shared memory for batches, but "
                f"{shared} has only {free / 1e6:.0f} MB free; give a container more (docker run --shm-size=2g), or "
                "use data.num_workers=0."
            )

    def _is_resident(self, device: torch.device) -> bool:
        size = self.stored_bytes
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        held = sum(stored.nbytes for stored in self._on_device.values())
        if self.resident == "device" and free is not None and size - held > free:
            raise DataError(
                f"data.resident=device needs {size / 1e9:.1f} GB on the device, but only {free / 1e9:.1f} GB is free; "
                "use data.resident=memory, which copies batch by batch."
            )
        if self.resident != "auto":
            return self.resident == "device"
        # On the CPU nothing is copied: the images stay memory-mapped.
        return device.type == "cpu" or (free is not None and size - held <= free / 2)

    def _stored(self, part: Prepared, device: torch.device) -> Tensor:
        """Return the stored images of `part` on `device`; training and validation share them."""
        key = id(part.stored)
        if key not in self._on_device:
            self._on_device[key] = torch.from_numpy(part.stored).to(device)
        return self._on_device[key]


def resize_to(image_size: int) -> list[dict[str, Any]]:
    """Return the config of a transform that resizes to a square of `image_size` pixels per side."""
    # "image" averages when shrinking; linear interpolation would skip pixels.
    resize = {"height": image_size, "width": image_size, "area_for_downscale": "image"}
    return [{"_target_": "albumentations.Resize", **resize}]


def available_workers(requested: int | Literal["auto"]) -> int:
    """Return `requested`; for "auto" one process per available core, at most 8."""
    return min(available_cores(), 8) if requested == "auto" else requested
