"""Which images make up which batch."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.loading import ArrayDataset, BatchSampler, Chosen, LoaderFailed, ResidentBatches, WorkerLoader
from vitexp.data.prepare import Prepared


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 7, 8, 33])
def test_all_processes_together_see_every_index_once(length: int, world_size: int) -> None:
    samplers = [
        BatchSampler(length=length, batch_size=8, shuffle=True, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    seen = [index for sampler in samplers for chosen in sampler for index in chosen.indices.tolist()]
    assert sorted(seen) == list(range(length))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]


def test_batches_are_the_same_for_any_number_of_processes() -> None:
    [alone] = [list(BatchSampler(length=24, batch_size=8, shuffle=True, seed=5))]
    parts = [BatchSampler(length=24, batch_size=8, shuffle=True, seed=5, rank=rank, world_size=2) for rank in range(2)]
    for whole, first, second in zip(alone, *parts, strict=True):
        assert set(whole.indices.tolist()) == {*first.indices.tolist(), *second.indices.tolist()}
        assert len({whole.key, second.key}) == 2  # their draws differ


def test_the_order_depends_on_seed_and_epoch() -> None:
    sampler = BatchSampler(length=50, batch_size=50, shuffle=True, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(next(iter(sampler)).indices.tolist())
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    [other] = BatchSampler(length=50, batch_size=50, shuffle=True, seed=2)
    assert other.indices.tolist() != orders[0]


LABELS = np.repeat([0, 1, 2], [44, 5, 1]).astype(np.int64)


@pytest.mark.parametrize("options", [{"shuffle": True}, {"balance": LABELS}])
def test_a_resumed_epoch_is_the_remainder_of_the_full_one(options: dict[str, Any]) -> None:
    sampler, resumed = (BatchSampler(length=50, batch_size=8, seed=1, drop_last=True, **options) for _ in range(2))
    resumed.begin_at(epoch=3, images=16)
    for epoch, first in ((3, 2), (4, 0)):
        sampler.set_epoch(epoch)
        resumed.set_epoch(epoch)
        whole, rest = list(sampler), list(resumed)
        assert [chosen.key for chosen in rest] == [chosen.key for chosen in whole[first:]]
        assert torch.equal(torch.cat([c.indices for c in rest]), torch.cat([c.indices for c in whole[first:]]))
        assert len(resumed) == len(sampler) == 6  # Lightning counts the batches of the full epoch


def test_balanced_draws_every_class_and_each_of_its_images_equally_often() -> None:
    sampler = BatchSampler(length=50, batch_size=50, balance=LABELS, seed=2)
    epochs = []
    for epoch in range(400):
        sampler.set_epoch(epoch)
        [chosen] = sampler
        epochs.append(chosen.indices.numpy())
    assert not np.array_equal(epochs[0], epochs[1])
    draws = np.bincount(np.concatenate(epochs), minlength=50)
    expected = 400 * 50 / (3 * np.bincount(LABELS)[LABELS])  # 20,000 draws with probability 1 / (C n_c)
    assert np.abs(draws - expected).max() < 5 * np.sqrt(expected.max())
    assert np.allclose([draws[label == LABELS].sum() for label in range(3)], 400 * 50 / 3, rtol=0.05)


def test_balanced_draws_do_not_depend_on_the_number_of_processes() -> None:
    whole = BatchSampler(length=50, batch_size=8, balance=LABELS, seed=5)
    ranks = [BatchSampler(length=50, batch_size=8, balance=LABELS, seed=5, rank=r, world_size=2) for r in range(2)]
    for alone, first, second in zip(whole, *ranks, strict=True):
        dealt = torch.stack([first.indices, second.indices], dim=1).flatten() if len(alone.indices) % 2 == 0 else None
        assert dealt is not None
        assert torch.equal(dealt, alone.indices)


def test_drop_last_gives_full_batches_only() -> None:
    sampler = BatchSampler(length=21, batch_size=8, drop_last=True)
    assert [len(chosen.indices) for chosen in sampler] == [8, 8]
    assert len(sampler) == 2


def noise(length: int) -> Prepared:
    """Noise images: every second one of the stored images."""
    stored = np.random.default_rng(0).integers(0, 256, (2 * length, 4, 4, 3), dtype=np.uint8)
    numbers = np.arange(length)
    moments = np.zeros((length, 2, 3))
    return Prepared(stored=stored, rows=2 * numbers, labels=numbers, groups=numbers, moments=moments)


def test_dataset_fetches_a_batch_and_augments_each_image() -> None:
    images = noise(5)
    chosen = Chosen(torch.tensor([3, 0]), (1, 2))
    expected = torch.from_numpy(images.stored[[6, 0]])
    assert torch.equal(ArrayDataset(images)[chosen][0], expected)
    invert = AlbumentationsAugment(transforms=[{"_target_": "albumentations.InvertImg", "p": 1.0}])
    inverted = ArrayDataset(images, augment=invert)[chosen]
    assert torch.equal(inverted[0], 255 - expected)
    assert inverted[1].tolist() == [3, 0]


def test_draws_depend_on_the_key_of_the_batch() -> None:
    images = noise(5)
    sometimes = AlbumentationsAugment(transforms=[{"_target_": "albumentations.GaussNoise", "p": 1.0}])
    dataset, indices = ArrayDataset(images, augment=sometimes), torch.arange(5)
    first, other, again = (dataset[Chosen(indices, key)][0] for key in ((0, 1), (0, 2), (0, 1)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("rank", [0, 1])
def test_resident_batches_equal_those_of_the_data_loader(rank: int) -> None:
    images = noise(21)
    epochs = []
    for resident in (True, False):
        sampler = BatchSampler(length=21, batch_size=8, shuffle=True, seed=3, rank=rank, world_size=2)
        loader: Any = DataLoader(ArrayDataset(images), sampler=sampler, batch_size=None)
        if resident:
            stored, rows, labels = map(torch.from_numpy, (images.stored, images.rows, images.labels))
            loader = ResidentBatches(stored=stored, rows=rows, labels=labels, sampler=sampler)
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            epochs.append(list(loader))
            assert len(loader) == len(epochs[-1])
    torch.testing.assert_close(epochs[:2], epochs[2:], rtol=0, atol=0)
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])


def test_a_process_without_images_has_as_many_batches_as_the_others() -> None:
    """Otherwise it would miss the collective operation after each batch."""
    samplers = [BatchSampler(length=9, batch_size=8, rank=rank, world_size=2) for rank in range(2)]
    shares = [[chosen.indices.tolist() for chosen in sampler] for sampler in samplers]
    assert shares == [[[0, 2, 4, 6], [8]], [[1, 3, 5, 7], []]]
    stored, numbers = torch.zeros(9, 4, 4, 3, dtype=torch.uint8), torch.arange(9)
    for batches in (
        ResidentBatches(stored=stored, rows=numbers, labels=numbers, sampler=samplers[1]),
        DataLoader(ArrayDataset(noise(9)), sampler=samplers[1], batch_size=None),
    ):
        images, labels = list(batches)[-1]
        assert (images.shape, labels.shape) == ((0, 4, 4, 3), (0,))


def test_an_epoch_without_a_full_batch_has_none() -> None:
    sampler = BatchSampler(length=7, batch_size=8, drop_last=True)
    empty = torch.empty(0, dtype=torch.int64)
    assert list(ResidentBatches(stored=empty, rows=empty, labels=empty, sampler=sampler)) == []


def test_accumulated_batches_form_the_same_steps() -> None:
    """This includes epochs whose dropped images would fill part of another step."""
    steps = list(BatchSampler(length=31, batch_size=8, shuffle=True, drop_last=True))
    parts = list(BatchSampler(length=31, batch_size=8, shuffle=True, drop_last=True, accumulated=2))
    for step, first, second in zip(steps, parts[::2], parts[1::2], strict=True):
        assert torch.equal(torch.cat([first.indices, second.indices]), step.indices)
    assert len(steps) == 3


def test_a_batch_that_cannot_be_divided_among_processes_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=8 must be a multiple of world_size=3"):
        BatchSampler(length=24, batch_size=8, world_size=3)


class Faulty(ArrayDataset):
    """Images whose worker process ends as `how` says."""

    def __init__(self, how: str) -> None:
        numbers = np.arange(8)
        stored = np.zeros((8, 4, 4, 3), np.uint8)
        super().__init__(
            Prepared(stored=stored, rows=numbers, labels=numbers, groups=numbers, moments=np.zeros((8, 2, 3)))
        )
        self.how = how

    def __getitem__(self, chosen: Chosen) -> tuple[torch.Tensor, torch.Tensor]:
        if self.how == "hang":
            time.sleep(60)
        elif self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise ValueError("a mistake in the augmentation")
        return super().__getitem__(chosen)


@pytest.mark.parametrize(
    ("how", "words"), [("hang", "timed out after 1"), ("die", r"\(pid.*\) (is killed by signal|exited unexpectedly)")]
)
def test_a_worker_that_delivers_nothing_ends_the_run_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, how: str, words: str
) -> None:
    monkeypatch.setattr("vitexp.data.loading._TIMEOUT_S", 1.0)
    sampler = BatchSampler(length=8, batch_size=4)
    loader = WorkerLoader(Faulty(how), sampler=sampler, num_workers=1, pin_memory=False)
    with pytest.raises(LoaderFailed, match=f"the 1 processes that load images failed .*{words}.*data.num_workers=0"):
        list(loader)


def test_a_mistake_in_a_worker_stays_one() -> None:
    loader = WorkerLoader(
        Faulty("mistake"), sampler=BatchSampler(length=8, batch_size=4), num_workers=1, pin_memory=False
    )
    with pytest.raises(ValueError, match="a mistake in the augmentation"):
        list(loader)
