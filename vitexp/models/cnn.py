"""The convolutional baseline: a small network of four layers."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

from torch import Tensor, nn

from vitexp.options import Doc, Field, Rate


class SimpleCNN(nn.Module):
    """Four 3x3 convolutions (32, 64, 128, 256), each with batch norm, ReLU and 2x2 max-pool; then two linear layers.

    Images (B, in_channels, image_size, image_size) -> logits (B, num_classes).

    Raises ValueError for an `image_size` below 16, which cannot be halved four times.
    """

    has_blocks: ClassVar[bool] = False
    has_attention: ClassVar[bool] = False
    has_patches: ClassVar[bool] = False
    has_batch_norm: ClassVar[bool] = True
    accepts_weights: ClassVar[bool] = False
    any_image_size: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        in_channels: int = 3,
        hidden: Annotated[int, Field(ge=1, le=65_536), Doc("channels of the hidden linear layer")] = 256,
        dropout: Annotated[Rate, Doc("before the last layer")] = 0.3,
    ) -> None:
        super().__init__()
        if image_size < 16:
            raise ValueError(f"image_size={image_size} cannot be halved four times; use 16 pixels or more.")
        widths = [in_channels, 32, 64, 128, 256]
        self.features = nn.Sequential()
        for before, after in pairwise(widths):
            # Without a bias, because batch norm subtracts the mean.
            self.features.append(nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False))
            self.features.append(nn.BatchNorm2d(after))
            self.features.append(nn.ReLU(inplace=True))
            self.features.append(nn.MaxPool2d(2))
        side = image_size // 16
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * side * side, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]
