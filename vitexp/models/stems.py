"""Stems: images (B, C, H, W) to patch tokens (B, N, dim), N = (H / patch_size) * (W / patch_size), row by row."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitexp.models.attention import NORM_EPS


class PatchStem(nn.Module):
    """Adjacent patches, each mapped linearly (Dosovitskiy et al. 2021)."""

    def __init__(self, *, in_channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]  # (B, dim, h, w) -> (B, N, dim)


class ConvStem(nn.Module):
    """Overlapping 3x3 convolutions, each with ReLU and a 3x3 max-pool of stride 2 (CCT, Hassani et al. 2021, 3.4).

    Each stage halves the side, so `log2(patch_size)` stages give the same grid as patches of `patch_size`.

    Raises ValueError unless `patch_size` is a power of two, at least 2.
    """

    def __init__(self, *, in_channels: int, patch_size: int, dim: int, width: int = 64) -> None:
        super().__init__()
        stages = patch_size.bit_length() - 1
        if stages < 1 or patch_size != 2**stages:
            raise ValueError(
                f"patch_size={patch_size} does not fit stem='conv', whose stages each halve the side; "
                "use a power of two, at least 2."
            )
        widths = [in_channels, *[width] * (stages - 1), dim]
        self.layers = nn.Sequential()
        for before, after in pairwise(widths):
            self.layers.append(nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False))
            self.layers.append(nn.ReLU(inplace=True))
            self.layers.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        # Channels last is the faster layout for convolutions, and already that of the tokens.
        x = self.layers(x.contiguous(memory_format=torch.channels_last))  # (B, dim, h, w)
        return x.flatten(2).transpose(1, 2)


class ShiftedStem(nn.Module):
    """Shifted patch tokenization (SPT, Lee et al. 2021, section 3.1).

    The image and its four copies shifted by half a patch along the diagonals are cut into patches together, so that
    a token sees beyond its patch.

    Raises ValueError for a `patch_size` below 2, which cannot be halved.
    """

    def __init__(self, *, in_channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        if patch_size < 2:
            raise ValueError(f"patch_size={patch_size} cannot be halved, as stem='shifted' needs; use 2 or more.")
        self.patch_size = patch_size
        patch_dim = 5 * in_channels * patch_size**2
        self.norm = nn.LayerNorm(patch_dim, eps=NORM_EPS)
        self.proj = nn.Linear(patch_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, *diagonal_shifts(x, self.patch_size // 2)], dim=1)  # (B, 5C, H, W)
        patches = F.pixel_unshuffle(x, self.patch_size).flatten(2).transpose(1, 2)  # (B, N, 5C * patch_size^2)
        return self.proj(self.norm(patches))  # type: ignore[no-any-return]


def diagonal_shifts(x: Tensor, step: int) -> list[Tensor]:
    """Return images (B, C, H, W) moved by `step` pixels up-left, up-right, down-left and down-right, zero-filled."""
    moves = [(-step, -step), (step, -step), (-step, step), (step, step)]
    return [F.pad(x, (right, -right, down, -down)) for right, down in moves]
