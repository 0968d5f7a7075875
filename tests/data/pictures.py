"""Test images for augmentation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pictures(count: int = 6, height: int = 32, width: int = 32) -> Tensor:
    """Return smooth images of 256 levels that contain edges, black and white: float32 [count, 3, height, width]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5, generator=generator) * 1.6 - 0.3
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True).clamp(0, 1)
    smooth[:, 0, 8:14, 5:9] = 1.0
    return (smooth * 255).round() / 255


def to_uint8(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)
