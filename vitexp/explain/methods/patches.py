"""The first layer of a network: patches of an image, filters, and position embeddings."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize


def image_patches(images: NDArray[np.uint8], *, patch_size: int) -> NDArray[np.uint8]:
    """Cut images [B, H, W, C] into patches: [B, H / p, W / p, p, p, C], of the same dtype.

    Raises:
        ValueError: `patch_size` does not divide the sides.
    """
    batch, height, width, channels = images.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"patch_size={patch_size} does not divide images of {height} x {width} pixels")
    rows, columns = height // patch_size, width // patch_size
    return images.reshape(batch, rows, patch_size, columns, patch_size, channels).swapaxes(2, 3)


def shifted_filters(weight: Tensor, scale: Tensor, *, patch_size: int) -> Tensor:
    """Return the filters of shifted patch tokenization over the window of a token: [F, 3, w, w].

    The five shifted copies of an image, moved back, form one window of w = p + 2 (p // 2) pixels per side. The filters
    include the scale and the mean subtraction of the LayerNorm, but not its division by the standard deviation, which
    differs by token and is the same for all filters.

    Args:
        weight: [F, 5 * 3 * p * p], weight of the linear layer for the image and for its copies shifted left-up,
            right-up, left-down and right-down by p // 2 pixels; each in the order channels, rows, columns.
        scale: [5 * 3 * p * p], weight of the LayerNorm before it.
    """
    filters = weight.detach().float() * scale.detach().float()
    filters = filters - filters.mean(dim=1, keepdim=True)
    step = patch_size // 2
    copies = filters.reshape(len(filters), 5, 3, patch_size, patch_size).unbind(dim=1)
    window = filters.new_zeros(len(filters), 3, *(patch_size + 2 * step,) * 2)
    # A copy shifted left and up shows what is further right and down.
    for copy, (row, column) in zip(copies, ((1, 1), (2, 2), (2, 0), (0, 2), (0, 0)), strict=True):
        top, left = row * step, column * step
        window[:, :, top : top + patch_size, left : left + patch_size] += copy
    return window


def filter_components(filters: Tensor, *, components: int = 28) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the first principal components of filters, and the fraction of the variance that each explains.

    As in Dosovitskiy et al. 2021, figure 7, left.

    Args:
        filters: [F, C, h, w], weights of a patch embedding or first convolution.
        components: maximum number K; at most F and the number of weights per filter.

    Returns:
        Components float32 [K, h, w, C], of length 1 and arbitrary sign, and decreasing fractions float32 [K].
    """
    count, channels, height, width = filters.shape
    flat = filters.detach().float().reshape(count, -1)
    _, lengths, directions = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)
    shares = lengths**2 / (lengths**2).sum().clamp(min=1e-12)
    pictures = directions[:components].reshape(-1, channels, height, width).permute(0, 2, 3, 1)
    return np.asarray(pictures.cpu().numpy(), np.float32), np.asarray(shares[:components].cpu().numpy(), np.float32)


def position_similarity(pos_embed: Tensor, *, prefix_tokens: int, grid_size: int) -> NDArray[np.float32]:
    """Return the cosine similarity of each pair of patch positions: float32 [g, g, g, g], in [-1, 1].

    `similarity[row, column]` is the map [g, g] of similarities to the patch at (row, column), as in Dosovitskiy et al.
    2021, figure 7. A zero embedding has similarity 0.

    Args:
        pos_embed: [1, prefix_tokens + g * g, dim].

    Raises:
        ValueError: the number of positions does not fit the grid.
    """
    unit = normalize(_patch_positions(pos_embed, prefix_tokens, grid_size), dim=-1)
    similarity = (unit @ unit.T).reshape((grid_size,) * 4)
    return np.asarray(similarity.cpu().numpy(), dtype=np.float32)


def position_norm(pos_embed: Tensor, *, prefix_tokens: int, grid_size: int) -> NDArray[np.float32]:
    """Return the length of each patch position embedding: float32 [g, g]. Arguments as in `position_similarity`."""
    norm = _patch_positions(pos_embed, prefix_tokens, grid_size).norm(dim=-1).reshape(grid_size, grid_size)
    return np.asarray(norm.cpu().numpy(), dtype=np.float32)


def _patch_positions(pos_embed: Tensor, prefix_tokens: int, grid_size: int) -> Tensor:
    """Return the position embeddings of the patches: float32 [g * g, dim]."""
    expected = prefix_tokens + grid_size**2
    if pos_embed.ndim != 3 or pos_embed.shape[:2] != (1, expected):
        raise ValueError(
            f"pos_embed has shape {tuple(pos_embed.shape)}, but {prefix_tokens} prefix tokens and "
            f"{grid_size} x {grid_size} patches need (1, {expected}, dim)"
        )
    return pos_embed.detach()[0, prefix_tokens:].float()
