"""Convolution over the grid of patch tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TokenConv(nn.Conv2d):
    """A 3x3 depthwise convolution over the patch tokens; those before them (class token, registers) pass by.

    (B, T, dim) -> (B, T, dim), of which T - prefix_tokens are the patches of a square grid, row by row. Between the
    linear layers of the MLP it mixes neighbours there (LocalViT, Li et al. 2021; CeiT, Yuan et al. 2021; here without
    batch norm, as in SegFormer's Mix-FFN, Xie et al. 2021).
    """

    def __init__(self, *, dim: int, prefix_tokens: int) -> None:
        super().__init__(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.prefix_tokens = prefix_tokens

    def forward(self, x: Tensor) -> Tensor:
        prefix, patches = x[:, : self.prefix_tokens], x[:, self.prefix_tokens :]
        side = math.isqrt(patches.shape[1])
        grid = patches.transpose(1, 2).view(-1, self.in_channels, side, side)  # (B, dim, side, side)
        # Channels last is how the tokens lie, and on a CPU three times as fast as planes.
        grid = super().forward(grid.contiguous(memory_format=torch.channels_last))
        patches = grid.flatten(2).transpose(1, 2)
        return torch.cat([prefix, patches], dim=1) if self.prefix_tokens else patches
