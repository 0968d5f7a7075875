"""Batches by index: which images make up which batch, and two ways to fetch a whole batch."""

from __future__ import annotations

import math
import multiprocessing
import re
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.prepare import Prepared
from vitexp.data.workers import hidden_main, needs_main
from vitexp.errors import UserError

_TIMEOUT_S = 120.0  # for a batch: a worker that was killed may never deliver it
_WORKER_FAULTS = re.compile(
    r"EOFError|ConnectionResetError|BrokenPipeError|DataLoader timed out[\w ]*"
    r"|DataLoader worker.*? (is killed by signal: [\w ]+|exited unexpectedly)"
    r"|[Tt]oo many open files|unable to \w+ (shared memory|to file)[^:]*|received \d+ items of ancdata"
)


class Chosen(NamedTuple):
    """The images of a batch, int64 [batch], and a key that is unique within the training run."""

    indices: Tensor
    key: tuple[int, ...]


class BatchSampler(Sampler[Chosen]):
    """The images of each batch of this process.

    All processes together visit every index exactly once per epoch: nothing is padded or repeated, but `drop_last`
    drops the images that do not fill an optimizer step. With `balance`, they visit as many indices drawn with
    replacement instead. The order of an epoch depends on `seed` and the epoch only, so it is the same for any number of
    processes and for a resumed run (see `begin_at`). All processes have the same number of batches, because they wait
    for each other; the last batch of a process is empty if there are not enough images.

    length: number of images.
    batch_size: images per optimizer step, of all processes and over `accumulated` batches together.
    shuffle: visit the indices in random order.
    balance: labels, int64 [length]; draw all classes equally often, and all images of a class equally often.

    Raises ValueError if the processes cannot share `batch_size` evenly.
    """

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        shuffle: bool = False,
        balance: NDArray[np.int64] | None = None,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulated: int = 1,
    ) -> None:
        if batch_size % (world_size * accumulated):
            raise ValueError(
                f"batch_size={batch_size} must be a multiple of world_size={world_size} times accumulated={accumulated}"
            )
        self.length, self.batch_size, self.shuffle, self.drop_last = length, batch_size, shuffle, drop_last
        self.balance = balance
        self.accumulated = accumulated
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self._start = (0, 0)

    def begin_at(self, *, epoch: int, images: int) -> None:
        """Skip the first `images` of `epoch`: a whole number of batches, counted over all processes."""
        self.epoch = epoch
        self._start = (epoch, images // (self.batch_size // self.accumulated))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.drop_last:
            return self.length // self.batch_size * self.accumulated
        return math.ceil(self.length / (self.batch_size // self.accumulated))

    def __iter__(self) -> Iterator[Chosen]:
        first = self._start[1] if self._start[0] == self.epoch else 0
        batches = torch.split(self._order(), self.batch_size // self.accumulated)[: len(self)]
        for number in range(first, len(batches)):
            yield Chosen(batches[number][self.rank :: self.world_size], (self.seed, self.epoch, number, self.rank))

    def _order(self) -> Tensor:
        """Return the indices of the epoch, of all processes: int64 [length]."""
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        )
        if self.balance is not None:
            labels = torch.from_numpy(self.balance)
            by_class = labels.argsort(stable=True)
            _, counts = torch.unique(labels, return_counts=True)
            starts = counts.cumsum(0) - counts
            drawn = torch.randint(len(counts), (self.length,), generator=generator)
            within = torch.rand(self.length, dtype=torch.float64, generator=generator)
            return by_class[starts[drawn] + (within * counts[drawn]).long()]
        if self.shuffle:
            return torch.randperm(self.length, generator=generator)
        return torch.arange(self.length)


class ResidentBatches:
    """Batches selected on the device that holds all images.

    No image is copied from the host, and the host never waits for the device.

    stored: uint8 [M, H, W, 3], on the device.
    rows: int64 [N], indices of the images in `stored`. labels: int64 [N]. Both on the device.
    sampler: chooses among the N images.
    """

    batch_sampler = None  # Lightning reads it wherever there is a sampler; None as in a DataLoader of whole batches

    def __init__(self, *, stored: Tensor, rows: Tensor, labels: Tensor, sampler: BatchSampler) -> None:
        self.stored, self.rows, self.labels, self.sampler = stored, rows, labels, sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = [chosen.indices for chosen in self.sampler]
        # Copy the indices of the whole epoch: a copy per batch would make the host wait for the device each time.
        order = torch.cat(batches).to(self.stored.device) if batches else torch.empty(0)
        for indices in torch.split(order, [len(batch) for batch in batches]):
            yield self.stored.index_select(0, self.rows[indices]), self.labels[indices]


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """Prepared images in memory or in a file; one access fetches a whole batch.

    augment: applied per image. Its random numbers depend on the key of the batch only, not on the number of workers.
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


class LoaderFailed(UserError):
    """The processes that load images cannot deliver them."""

    exit_code = 1


class WorkerLoader(DataLoader[tuple[Tensor, Tensor]]):
    """A DataLoader of the batches that `sampler` chooses, whose workers do not execute the user's script."""

    def __init__(self, dataset: ArrayDataset, *, sampler: BatchSampler, num_workers: int, pin_memory: bool) -> None:
        # A forked worker inherits the script; a spawned one cannot import what the script defines.
        method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
        self._forks = method == "fork"
        num_workers = num_workers if self._forks or not needs_main(dataset.augment) else 0
        super().__init__(
            dataset,
            sampler=sampler,  # an index is a whole batch
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=None if dataset.augment is None else dataset.augment.worker_init_fn,
            timeout=_TIMEOUT_S if num_workers else 0,
        )

    def __iter__(self) -> Any:
        """Yield the batches. Raises LoaderFailed if the workers cannot deliver them."""
        try:
            yield from super().__iter__()
        except (RuntimeError, OSError, EOFError) as error:
            found = _WORKER_FAULTS.search(f"{type(error).__name__} {error}")
            if found is None or not self.num_workers:
                raise
            raise LoaderFailed(
                f"the {self.num_workers} processes that load images failed ({found[0]}); perhaps there is too little "
                "memory, shared memory (docker run --shm-size=2g) or open files (ulimit -n 4096); data.num_workers=0 "
                "needs the least of them."
            ) from error

    def _get_iterator(self) -> Any:
        with nullcontext() if self._forks else hidden_main():
            return super()._get_iterator()
