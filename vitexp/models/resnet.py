"""ResNet-18 for small images. A separate module, because torchvision is slow to import."""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


class ResNet18(ResNet):  # type: ignore[misc]
    """ResNet-18 (He et al. 2016) with the stem for small images: 3x3 at stride 1, no max-pool.

    Images (B, in_channels, H, W) -> logits (B, num_classes). Weights are random.

    Raises ValueError for an `image_size` below 8, which cannot be halved three times.
    """

    has_blocks: ClassVar[bool] = False
    has_attention: ClassVar[bool] = False
    has_patches: ClassVar[bool] = False
    has_batch_norm: ClassVar[bool] = True
    accepts_weights: ClassVar[bool] = False
    any_image_size: ClassVar[bool] = False

    def __init__(self, *, num_classes: int, image_size: int, in_channels: int = 3) -> None:
        if image_size < 8:
            raise ValueError(f"image_size={image_size} cannot be halved three times; use 8 pixels or more.")
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
        self.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")  # as in torchvision
        self.maxpool = nn.Identity()
