"""Small networks for fast tests."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from vitexp.models import PyramidVisionTransformer, SwinTransformer, ViT
from vitexp.models.trained_net import TrainedNet

Net = TypeVar("Net", bound=nn.Module)


def vit(*, depth: int = 3, num_classes: int = 5, **options: Any) -> ViT:
    """Return a ViT in eval mode for 16x16 images: patches of 4x4 pixels, weights large enough that its heads differ.

    Seeds torch.
    """
    return _random(
        ViT(image_size=16, num_classes=num_classes, patch_size=4, dim=24, depth=depth, num_heads=3, **options)
    )


def swin(**options: Any) -> SwinTransformer:
    """Return a Swin Transformer in eval mode for 16x16 images, with maps of 8x8 and 4x4. Seeds torch."""
    options = {"dim": 6, "depths": (2, 1), "num_heads": (2, 3), **options}
    return _random(SwinTransformer(image_size=16, num_classes=5, **options))


def pvt() -> PyramidVisionTransformer:
    """Return a PVT v2 in eval mode for 16x16 images, with maps of 8x8 and 4x4; only the second attends to a choice of
    positions. Seeds torch.
    """
    net = PyramidVisionTransformer(
        image_size=16,
        num_classes=5,
        patch_size=2,
        dims=(6, 9),
        depths=(1, 1),
        num_heads=(2, 3),
        reductions=(8, 2),
        mlp_ratios=(2.0, 2.0),
    )
    return _random(net)


def trained(net: nn.Module, *, num_classes: int = 5) -> TrainedNet:
    """Return a network for 16x16 images as an explainer takes it."""
    names = [f"class {number}" for number in range(num_classes)]
    return TrainedNet(net=net, classes=names, image_size=16, mean=torch.zeros(3), std=torch.ones(3))


def grid(net: ViT) -> dict[str, Any]:
    """Return where the patches are among the tokens."""
    return {"prefix_tokens": net.prefix_tokens, "has_cls": net.has_cls, "grid_size": net.grid_size}


def _random(net: Net) -> Net:
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net.eval()
