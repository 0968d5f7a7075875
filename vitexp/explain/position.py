"""What a position embedding has learned: which positions it holds alike, and how strongly it marks each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize


def position_similarity(pos_embed: Tensor, *, prefix_tokens: int, grid_size: int) -> NDArray[np.float32]:
    """Cosine similarity of every pair of patch positions: float32 [g, g, g, g], in [-1, 1].

    `similarity[row, column]` is the map [g, g] of how alike the others are to the patch at (row, column), as in
    Dosovitskiy et al. 2021, figure 7. A zero embedding is similar to nothing (0).

    Args:
        pos_embed: [1, prefix_tokens + g * g, dim].

    Raises:
        ValueError: the number of positions does not fit the grid.
    """
    unit = normalize(_patch_positions(pos_embed, prefix_tokens, grid_size), dim=-1)
    similarity = (unit @ unit.T).reshape((grid_size,) * 4)
    return np.asarray(similarity.cpu().numpy(), dtype=np.float32)


def position_norm(pos_embed: Tensor, *, prefix_tokens: int, grid_size: int) -> NDArray[np.float32]:
    """Euclidean length of every patch position's embedding: float32 [g, g]. Arguments as in `position_similarity`."""
    norm = _patch_positions(pos_embed, prefix_tokens, grid_size).norm(dim=-1).reshape(grid_size, grid_size)
    return np.asarray(norm.cpu().numpy(), dtype=np.float32)


def _patch_positions(pos_embed: Tensor, prefix_tokens: int, grid_size: int) -> Tensor:
    """The patches' part of `pos_embed`: float32 [g * g, dim]."""
    expected = prefix_tokens + grid_size**2
    if pos_embed.ndim != 3 or pos_embed.shape[:2] != (1, expected):
        raise ValueError(
            f"pos_embed has shape {tuple(pos_embed.shape)}, but {prefix_tokens} prefix tokens and "
            f"{grid_size} x {grid_size} patches need (1, {expected}, dim)"
        )
    return pos_embed.detach()[0, prefix_tokens:].float()
