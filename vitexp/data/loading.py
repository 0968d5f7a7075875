"""Batches by index: which images make up which batch, and the two ways to fetch a batch at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.prepare import Prepared


class Chosen(NamedTuple):
    """The images of a batch, int64 [batch], and a key that no other batch of the training has."""

    indices: Tensor
    key: tuple[int, ...]


class BatchSampler(Sampler[Chosen]):
    """The images of each batch of this process.

    All processes together see every index exactly once an epoch: nothing is padded or repeated, except that `drop_last`
    leaves out the images that do not fill an optimizer step. The order of an epoch depends on `seed` and the epoch
    alone, so it is the same for any number of processes and when a run goes on where it was stopped, see `begin_at`.
    All processes have the same number of batches, or else they would wait for each other for ever; where images run
    out, the last of a process is empty.

    batch_size: images an optimizer step sees, of all processes and over `accumulated` batches together. Raises
    ValueError where it cannot be shared out evenly.
    """

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulated: int = 1,
    ) -> None:
        if batch_size % (world_size * accumulated):
            raise ValueError(f"a batch of {batch_size} for {world_size} processes, {accumulated} times a step")
        self.length, self.batch_size, self.shuffle, self.drop_last = length, batch_size, shuffle, drop_last
        self.accumulated = accumulated
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self._began = (0, 0)

    def begin_at(self, *, epoch: int, images: int) -> None:
        """Leave out the first `images`, of all processes together, of `epoch`; a whole number of batches."""
        self.epoch = epoch
        self._began = (epoch, images // (self.batch_size // self.accumulated))

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.drop_last:
            return self.length // self.batch_size * self.accumulated
        return math.ceil(self.length / (self.batch_size // self.accumulated))

    def __iter__(self) -> Iterator[Chosen]:
        order = torch.arange(self.length)
        if self.shuffle:
            generator = torch.Generator().manual_seed(
                int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
            )
            order = torch.randperm(self.length, generator=generator)
        first = self._began[1] if self._began[0] == self.epoch else 0
        batches = torch.split(order, self.batch_size // self.accumulated)[: len(self)]
        for number in range(first, len(batches)):
            yield Chosen(batches[number][self.rank :: self.world_size], (self.seed, self.epoch, number, self.rank))


class ResidentBatches:
    """Batches selected on the device that holds all the images: no copy from the host, and nothing waits for it.

    stored: uint8 [M, H, W, 3] and labels: int64 [N], on the device; rows: int64 [N], which of the stored images these
    are. `sampler` says which of the N make up each batch, as for the DataLoader of an ArrayDataset, and in the same
    order.
    """

    batch_sampler = None  # Lightning asks for it wherever there is a sampler; None as in a DataLoader of whole batches

    def __init__(self, *, stored: Tensor, rows: Tensor, labels: Tensor, sampler: BatchSampler) -> None:
        self.stored, self.rows, self.labels, self.sampler = stored, rows, labels, sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = [chosen.indices for chosen in self.sampler]
        # the whole epoch at once: a copy for every batch would make the host wait for the device each time
        order = torch.cat(batches).to(self.stored.device) if batches else torch.empty(0)
        for indices in torch.split(order, [len(batch) for batch in batches]):
            yield self.stored.index_select(0, self.rows[indices]), self.labels[indices]


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """Prepared images in memory or in a file; one access fetches a whole batch.

    augment, if any, is applied image by image, with random numbers that depend on the key of the batch alone: any
    number of workers draws the same.
    """

    def __init__(self, images: Prepared, *, augment: AlbumentationsAugment | None = None) -> None:
        self.images, self.augment = images, augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: Chosen) -> tuple[Tensor, Tensor]:
        indices = chosen.indices.numpy()
        images, labels = self.images.images(indices), self.images.labels[indices]
        if self.augment is not None:
            self.augment.reseed(chosen.key)
            images = np.stack([self.augment(image) for image in images])
        return torch.from_numpy(images), torch.from_numpy(labels)
