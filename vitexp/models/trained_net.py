"""A trained net and the preparation of images for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class TrainedNet:
    """A net in evaluation mode, float [B, 3, S, S] -> logits [B, C], with what is needed to prepare images.

    classes: C names. image_size: S, pixels. mean, std: float32 [3], of values in [0, 1].
    """

    net: nn.Module
    classes: list[str]
    image_size: int
    mean: Tensor
    std: Tensor

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def prepared(self, images: NDArray[np.uint8] | Tensor) -> Tensor:
        """Convert images, uint8 [B, S, S, 3], to the input of the net: normalized float [B, 3, S, S] on its device."""
        unit = torch.as_tensor(images, device=self.device).permute(0, 3, 1, 2).contiguous().float() / 255.0
        return (unit - self.mean.to(self.device).view(3, 1, 1)) / self.std.to(self.device).view(3, 1, 1)
