"""Batches by index: which images make up which batch, and the two ways to fetch a batch at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from vitexp.data.prepare import Prepared


class BatchSampler(Sampler[Tensor]):
    """The indices of each batch of this process, int64 [batch].

    All processes together see every index exactly once an epoch: nothing is padded or repeated, except that `drop_last`
    leaves out the images that do not fill an optimizer step. The order of an epoch depends on `seed` and the epoch
    alone, so it is the same for any number of processes and after a resumption. All processes have the same number of
    batches, or else they would wait for each other for ever; where images run out, the last of a process is empty.

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

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.drop_last:
            return self.length // self.batch_size * self.accumulated
        return math.ceil(self.length / (self.batch_size // self.accumulated))

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.arange(self.length)
        if self.shuffle:
            generator = torch.Generator().manual_seed(
                int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
            )
            order = torch.randperm(self.length, generator=generator)
        for batch in torch.split(order, self.batch_size // self.accumulated)[: len(self)]:
            yield batch[self.rank :: self.world_size]


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
        batches = list(self.sampler)
        # the whole epoch at once: a copy for every batch would make the host wait for the device each time
        order = torch.cat(batches).to(self.stored.device) if batches else torch.empty(0)
        for indices in torch.split(order, [len(batch) for batch in batches]):
            yield self.stored.index_select(0, self.rows[indices]), self.labels[indices]


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """Prepared images in memory or in a file; one access fetches a whole batch.

    transform, if any, is applied image by image (uint8 [H, W, 3]).
    """

    def __init__(
        self, images: Prepared, *, transform: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None
    ) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        chosen = indices.numpy()
        images, labels = self.images.images(chosen), self.images.labels[chosen]
        if self.transform is not None:
            images = np.stack([self.transform(image) for image in images])
        return torch.from_numpy(images), torch.from_numpy(labels)
