"""Batches by index: which images make up which batch, and the dataset that fetches a batch at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler


class BatchSampler(Sampler[Tensor]):
    """The indices of each batch of this process, int64 [batch].

    All processes together see every index exactly once an epoch: nothing is padded or repeated, except that `drop_last`
    leaves out the images that do not fill a batch. The order of an epoch depends on `seed` and the epoch alone, so it
    is the same for any number of processes and after a resumption.

    batch_size: images a batch of all processes together; divisible by `world_size`.
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
    ) -> None:
        self.length, self.batch_size, self.shuffle, self.drop_last = length, batch_size, shuffle, drop_last
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.length, self.batch_size)
        return full + (rest > self.rank and not self.drop_last)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.arange(self.length)
        if self.shuffle:
            generator = torch.Generator().manual_seed(
                int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
            )
            order = torch.randperm(self.length, generator=generator)
        for batch in torch.split(order, self.batch_size)[: len(self)]:
            yield batch[self.rank :: self.world_size]


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """A prepared array; one access fetches a whole batch.

    images: uint8 [N, H, W, 3]; labels: int64 [N]; transform, if any, is applied image by image (uint8 [H, W, 3]).
    """

    def __init__(
        self,
        *,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        transform: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
    ) -> None:
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images = self.images[indices]
        if self.transform is not None:
            images = torch.from_numpy(np.stack([self.transform(image) for image in images.numpy()]))
        return images, self.labels[indices]
