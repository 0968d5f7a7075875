"""Which images make up which batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitexp.data.loading import ArrayDataset, BatchSampler


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 7, 8, 33])
def test_all_processes_together_see_every_index_once(length: int, world_size: int) -> None:
    samplers = [
        BatchSampler(length=length, batch_size=8, shuffle=True, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    seen = [index for sampler in samplers for batch in sampler for index in batch.tolist()]
    assert sorted(seen) == list(range(length))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]


def test_any_number_of_processes_makes_the_same_batches() -> None:
    [alone] = [list(BatchSampler(length=24, batch_size=8, shuffle=True, seed=5))]
    parts = [BatchSampler(length=24, batch_size=8, shuffle=True, seed=5, rank=rank, world_size=2) for rank in range(2)]
    for whole, first, second in zip(alone, *parts, strict=True):
        assert set(whole.tolist()) == {*first.tolist(), *second.tolist()}


def test_order_is_decided_by_seed_and_epoch() -> None:
    sampler = BatchSampler(length=50, batch_size=50, shuffle=True, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(next(iter(sampler)).tolist())
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    [other] = BatchSampler(length=50, batch_size=50, shuffle=True, seed=2)
    assert other.tolist() != orders[0]


def test_drop_last_gives_full_batches_only() -> None:
    sampler = BatchSampler(length=21, batch_size=8, drop_last=True)
    assert [len(batch) for batch in sampler] == [8, 8]
    assert len(sampler) == 2


def test_dataset_fetches_a_batch_and_transforms_each_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    plain = ArrayDataset(images=images, labels=np.arange(5))
    inverted = ArrayDataset(images=images, labels=np.arange(5), transform=lambda image: 255 - image)
    indices = torch.tensor([3, 0])
    assert torch.equal(plain[indices][0], torch.from_numpy(images[[3, 0]]))
    assert torch.equal(inverted[indices][0], 255 - plain[indices][0])
    assert inverted[indices][1].tolist() == [3, 0]
