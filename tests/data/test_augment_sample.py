"""Albumentations in DataLoader workers: seeded, different for every worker and epoch, and strict about arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.transforms import build_transforms

NOISE = [{"_target_": "albumentations.GaussNoise", "std_range": [0.2, 0.3], "p": 1.0}]


class Same(Dataset[Tensor]):
    """The same grey image every time, augmented: whatever differs was drawn."""

    def __init__(self, augment: AlbumentationsAugment) -> None:
        self.augment = augment

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.augment(np.full((8, 8, 3), 128, np.uint8)))


def two_epochs(seed: int, *, workers: int, persistent: bool = False) -> list[Tensor]:
    """Both epochs' images, uint8 [8, 8, 8, 3] each; with two workers and batches of two, they take turns."""
    torch.manual_seed(seed)
    augment = AlbumentationsAugment(transforms=NOISE)
    loader = DataLoader(
        Same(augment),
        batch_size=2,
        num_workers=workers,
        worker_init_fn=augment.worker_init_fn,
        persistent_workers=persistent,
    )
    return [torch.cat(list(loader)) for _ in range(2)]


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_seed_worker_and_epoch_decide(workers: int, persistent: bool) -> None:
    first = two_epochs(1, workers=workers, persistent=persistent)
    again = two_epochs(1, workers=workers, persistent=persistent)
    assert torch.equal(torch.stack(first), torch.stack(again)), "the same seed draws the same"
    other = two_epochs(2, workers=workers, persistent=persistent)
    images = torch.cat([*first, *other]).flatten(1)
    # Neither image, worker, epoch nor seed repeats another.
    assert len(np.unique(images.numpy(), axis=0)) == 32


def test_ranks_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        drawn.append(two_epochs(1, workers=0)[0])
    assert not torch.equal(*drawn)


def test_transforms_draw_independently() -> None:
    """Two transforms of probability 1/2 come together in a quarter of the images, not in half of them."""
    augment = AlbumentationsAugment(
        transforms=[{"_target_": f"albumentations.{name}Flip", "p": 0.5} for name in ("Horizontal", "Vertical")]
    )
    augment.reseed(0)
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    corners = [int(augment(image)[0, 0, 0]) for _ in range(200)]
    assert all(30 < corners.count(corner) < 70 for corner in range(4))


def test_the_given_image_is_not_changed() -> None:
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


def test_built_transforms_are_taken_as_they_are() -> None:
    built = build_transforms([{"_target_": "albumentations.CLAHE", "clip_limit": [2, 2], "p": 1}])
    assert build_transforms(built) == built
    assert getattr(built[0], "clip_limit", None) == (2, 2)


def test_a_pipeline_must_keep_shape_and_type() -> None:
    augment = AlbumentationsAugment(transforms=[{"_target_": "albumentations.Resize", "height": 4, "width": 4}])
    with pytest.raises(ValueError, match=r"\[8, 8, 3\] into uint8 \[4, 4, 3\]"):
        augment(np.zeros((8, 8, 3), np.uint8))
