"""Positions on a square grid: the fixed sine-cosine embedding, and what is learned, for a grid of another size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_position_embedding(*, grid: int, dim: int, prefix_tokens: int = 0) -> Tensor:
    """Return the fixed 2D embedding, float32 [1, prefix_tokens + grid * grid, dim]; zero for prefix tokens.

    The channels are four quarters: sine and cosine of the column, sine and cosine of the row, at frequencies
    10000^(-i / (dim / 4)), as in MoCo v3 (Chen et al. 2021). Beyer et al. 2022 ("Better plain ViT baselines") find it
    as good as a learned one.

    Raises ValueError unless 4 divides `dim`.
    """
    if dim % 4:
        raise ValueError(f"dim={dim} is not divisible by 4, which the sine-cosine position embedding needs.")
    quarter = dim // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # (grid, dim / 4)
    along = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, dim / 2)
    columns = along[None, :, :].expand(grid, grid, -1)
    rows = along[:, None, :].expand(grid, grid, -1)
    patches = torch.cat([columns, rows], dim=2).reshape(1, grid * grid, dim)
    return F.pad(patches, (0, 0, prefix_tokens, 0)).float()


def interpolate_position_embedding(pos_embed: Tensor, *, old_grid: int, new_grid: int, prefix_tokens: int) -> Tensor:
    """Resample [1, prefix_tokens + old_grid^2, dim] to [1, prefix_tokens + new_grid^2, dim], bicubic, antialiased.

    The first `prefix_tokens` (class token, registers) are kept (Dosovitskiy et al. 2021, section 3.2).

    Raises ValueError if the number of embeddings does not fit `old_grid` and `prefix_tokens`.
    """
    expected = prefix_tokens + old_grid**2
    if pos_embed.shape[1] != expected:
        raise ValueError(
            f"There are {pos_embed.shape[1]} position embeddings; a {old_grid}x{old_grid} grid "
            f"with {prefix_tokens} prefix tokens has {expected}."
        )
    if new_grid == old_grid:
        return pos_embed
    prefix, patches = pos_embed[:, :prefix_tokens], pos_embed[:, prefix_tokens:]
    # A matrix product along each axis has a deterministic gradient, unlike F.interpolate.
    same = torch.eye(old_grid, device=pos_embed.device)[None, None]
    resampling = F.interpolate(same, size=(new_grid, old_grid), mode="bicubic", antialias=True, align_corners=False)
    square = patches.unflatten(1, (old_grid, old_grid)).float()  # type: ignore[no-untyped-call]
    square = torch.einsum("ai,bj,nijd->nabd", resampling[0, 0], resampling[0, 0], square)
    return torch.cat([prefix, square.flatten(1, 2).to(pos_embed.dtype)], dim=1)


def resize_relative_positions(table: Tensor, *, rows: int) -> Tensor:
    """Return a table of biases of relative positions, [(2w - 1)^2, heads], for a window with `rows` of them.

    A smaller window has some of the offsets; for a larger one, they are stretched (bicubic), as in Swin's fine-tuning.
    """
    old, new = math.isqrt(len(table)), math.isqrt(rows)
    square = table.view(old, old, -1)
    if new <= old:
        inner = slice((old - new) // 2, (old + new) // 2)
        return square[inner, inner].reshape(rows, -1)
    stretched = F.interpolate(square.permute(2, 0, 1)[None].float(), size=(new, new), mode="bicubic")[0]
    return stretched.permute(1, 2, 0).reshape(rows, -1).to(table.dtype)
