"""The convolutional baselines: a small network of four layers, and ResNet-18 for small images."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn


class SimpleCNN(nn.Module):
    """Four 3x3 convolutions (32, 64, 128, 256), each with batch norm, ReLU and 2x2 max-pool; then two linear layers.

    Images (B, in_channels, image_size, image_size) -> logits (B, num_classes).

    Raises ValueError for an `image_size` below 16, of which four halvings leave nothing.
    """

    has_blocks: ClassVar[bool] = False
    has_attention: ClassVar[bool] = False
    has_patches: ClassVar[bool] = False
    has_batch_norm: ClassVar[bool] = True
    accepts_weights: ClassVar[bool] = False
    any_image_size: ClassVar[bool] = False

    def __init__(self, *, num_classes: int, image_size: int, in_channels: int = 3, dropout: float = 0.3) -> None:
        super().__init__()
        if image_size < 16:
            raise ValueError(f"image_size={image_size} does not survive four halvings; use 16 pixels or more.")
        widths = [in_channels, 32, 64, 128, 256]
        self.features = nn.Sequential()
        for before, after in pairwise(widths):
            # Batch norm subtracts the mean, so that a bias before it would do nothing.
            self.features.append(nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False))
            self.features.append(nn.BatchNorm2d(after))
            self.features.append(nn.ReLU(inplace=True))
            self.features.append(nn.MaxPool2d(2))
        side = image_size // 16
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * side * side, 256),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(256, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]


def resnet18(*, num_classes: int, image_size: int, in_channels: int = 3) -> nn.Module:
    """ResNet-18 (He et al. 2016) with the stem for small images: 3x3 at stride 1, no max-pool, as He et al. on CIFAR.

    Images (B, in_channels, H, W) -> logits (B, num_classes). Weights are random.

    Raises ValueError for an `image_size` below 8, of which three halvings leave nothing.
    """
    # Slow to import, and no other model needs it.
    from torchvision.models import resnet18 as torchvision_resnet18

    if image_size < 8:
        raise ValueError(f"image_size={image_size} does not survive three halvings; use 8 pixels or more.")
    model: nn.Module = torchvision_resnet18(weights=None, num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's others
    model.maxpool = nn.Identity()
    return model
