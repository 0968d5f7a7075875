"""Mixup and CutMix against their closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitexp.training.mixing import Mixing, cutmix, mixup


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    """Return images i of constant value i + 1, with one-hot targets for class i."""
    images = torch.arange(1.0, size + 1).view(size, 1, 1, 1).expand(size, 3, 8, 8).contiguous()
    return images, torch.eye(size)


def test_mixup_is_the_convex_combination() -> None:
    images, _ = batch()
    partner = torch.tensor([1, 2, 3, 4, 5, 0])
    mixed = mixup(images, partner, 0.7)
    assert torch.allclose(mixed[0], torch.full((3, 8, 8), 0.7 * 1 + 0.3 * 2))
    assert torch.allclose(mixed[5], torch.full((3, 8, 8), 0.7 * 6 + 0.3 * 1))


def test_the_cutmix_share_is_the_share_of_pixels() -> None:
    images, _ = batch()
    partner = torch.tensor([1, 2, 3, 4, 5, 0])
    torch.manual_seed(0)
    for share in (0.1, 0.5, 0.9):
        mixed, stayed = cutmix(images, partner, share)
        own = (mixed == images).float().mean(dim=(1, 2, 3))
        assert torch.allclose(own, torch.full_like(own, stayed))
        assert (
            stayed >= share - 1e-6
        )  # clipping at the border and rounding to whole pixels can only shrink the rectangle
        assert set(mixed[0].unique().tolist()) <= {1.0, 2.0}


def test_targets_follow_the_images() -> None:
    images, targets = batch()
    torch.manual_seed(1)
    mixed, targets = Mixing(mixup_alpha=1.0, cutmix_alpha=0.0)(images, targets, progress=0.0)
    assert torch.allclose(targets.sum(dim=1), torch.ones(6))
    # the value of a mixed image is the mean class number under its target, plus 1
    assert torch.allclose(mixed[:, 0, 0, 0], targets @ torch.arange(1.0, 7.0))
    assert not torch.equal(mixed, images)


def test_cutmix_targets_follow_the_area() -> None:
    images, targets = batch()
    torch.manual_seed(1)
    mixed, targets = Mixing(mixup_alpha=0.0, cutmix_alpha=1.0)(images, targets, progress=0.0)
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), targets @ torch.arange(1.0, 7.0), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "progress"),
    [({"mixup_alpha": 0.0}, 0.0), ({"mix_prob": 0.0}, 0.0), ({"mix_until": 0.6}, 0.6), ({"mix_until": 0.6}, 1.0)],
)
def test_without_mixing_images_are_unchanged_and_targets_one_hot(changes: dict[str, float], progress: float) -> None:
    images, targets = batch()
    mixing = Mixing(**{"mixup_alpha": 1.0, "cutmix_alpha": 0.0, **changes})
    for _ in range(5):
        mixed, kept = mixing(images, targets, progress=progress)
        assert mixed is images
        assert kept is targets


def test_mixing_ends_at_mix_until() -> None:
    images, targets = batch()
    mixing = Mixing(mixup_alpha=1.0, cutmix_alpha=0.0, mix_until=0.6)
    assert mixing(images, targets, progress=0.59)[0] is not images


def test_switch_probability_chooses_between_the_two() -> None:
    images, targets = batch()
    torch.manual_seed(0)
    mixing = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0, mix_switch_prob=0.25)
    whole = sum(len(mixing(images, targets, progress=0.0)[0][0].unique()) == 1 for _ in range(400))
    # CutMix leaves whole images where its rectangle is empty, so a little more than 75 % are
    assert 0.70 < whole / 400 < 0.86


def test_draws_depend_on_the_seed() -> None:
    images, targets = batch()
    mixing = Mixing(mixup_alpha=0.4, cutmix_alpha=1.0)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(mixing(images, targets, progress=0.0)[0])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
