"""Transforms that draw once per call, applied image by image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PerImage(nn.Module):
    """A transform applied to each image of a batch: float32 [B, 3, H, W] in [0, 1] -> the same."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([self.transform(image) for image in images])


def per_image(augment: nn.Module) -> nn.Module:
    """Return `augment`, wrapped in PerImage if it contains a torchvision transform.

    torchvision draws the parameters of a transform once per call, so a whole batch would be changed in the same way.
    """
    bases = (base for module in augment.modules() for base in type(module).__mro__)
    return PerImage(augment) if any(base.__module__.startswith("torchvision.transforms") for base in bases) else augment
