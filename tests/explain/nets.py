"""Small networks for fast tests."""

from __future__ import annotations

from typing import Any

import torch

from vitexp.models import ViT


def vit(*, depth: int = 3, num_classes: int = 5, **options: Any) -> ViT:
    """Return a ViT in eval mode for 16x16 images: patches of 4x4 pixels, weights large enough that its heads differ.

    Seeds torch.
    """
    torch.manual_seed(0)
    net = ViT(image_size=16, num_classes=num_classes, patch_size=4, dim=24, depth=depth, num_heads=3, **options).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def grid(net: ViT) -> dict[str, Any]:
    """Return where the patches are among the tokens."""
    return {"prefix_tokens": net.prefix_tokens, "has_cls": net.has_cls, "grid_size": net.grid_size}
