"""Faulty components of the user are refused before any data is read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TINY, composed
from vitexp.config.check import check
from vitexp.errors import ConfigError
from vitexp.models import ViT
from vitexp.runs.tryout import try_out
from vitexp.training.losses import CrossEntropy
from vitexp.training.schedules import Schedule
from vitexp.training.task import Task


class To255(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images * 255


class Smaller(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images[..., ::2, ::2]


class Learned(CrossEntropy):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class Uphill(Schedule):
    def after_warmup(self, step: int, steps: int, steps_per_epoch: float, peak_lr: float) -> float:
        return -peak_lr


class Unnamed(Task):
    metrics = ("error",)

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return (images.mean(),)

    def measure(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return (images.mean(dim=(1, 2, 3)),)


class Fixed(ViT):
    def __init__(self, *, num_classes: int, image_size: int) -> None:
        super().__init__(num_classes=num_classes, image_size=image_size, patch_size=8, dim=16, depth=1, num_heads=2)


class NoFile:
    def __init__(self) -> None:
        raise FileNotFoundError(2, "there is no file", "numbers.txt")


@pytest.mark.parametrize(
    ("group", "kind", "sentence"),
    [
        ("augment", To255, r"values from 0 to 255; augment must be"),
        ("augment", Smaller, r"shape \[2, 3, 16, 16\] for images \[2, 3, 32, 32\]"),
        ("loss", Learned, "has parameters, but only those of the network are trained"),
        ("schedule", Uphill, "returned the learning rates 0.0002, -0.001"),
        ("task", Unnamed, "has the metrics error without loss"),
        ("loss", NoFile, "numbers.txt"),
    ],
)
def test_faults_are_one_sentence(group: str, kind: type, sentence: str) -> None:
    config = composed(*TINY)
    config[group] = {"_target_": f"{__name__}.{kind.__name__}"}
    with pytest.raises(ConfigError, match=sentence):
        try_out(config)


def test_a_vit_whose_constructor_sets_the_sizes_is_accepted() -> None:
    config = composed(*TINY)
    config.model = {"name": "fixed", "_target_": f"{__name__}.Fixed"}
    check(config)
    try_out(config)
