"""torchvision transforms as a batch augmentation."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.transforms import v2

from vitexp.data.augment import NaturalAugment, per_image


def test_torchvision_transform_draws_per_image_and_follows_the_seed() -> None:
    images = torch.rand(1, 3, 8, 8).repeat(32, 1, 1, 1)
    for transform in (v2.RandomHorizontalFlip(0.5), nn.Sequential(v2.Compose([v2.RandomHorizontalFlip(0.5)]))):
        augment = per_image(transform)
        made = []
        for _ in range(2):
            torch.manual_seed(1)
            made.append(augment(images))
        flipped = (made[0] != images).flatten(1).any(dim=1)
        assert 0 < flipped.sum() < 32
        assert torch.equal(*made)


def test_other_augmentations_are_not_wrapped() -> None:
    ours = NaturalAugment(flip_prob=0.5)
    assert per_image(ours) is ours
