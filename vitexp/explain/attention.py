"""Where a Vision Transformer looks: maps over the patches, made from recorded attention weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def cls_attention(
    weights: Sequence[Tensor], *, prefix_tokens: int, has_cls: bool, grid_size: int, layer: int = -1
) -> NDArray[np.float32]:
    """How much one layer attends to each patch, averaged over its heads: float32 [B, g, g].

    With a class token, the map is that token's attention to the patches (Caron et al. 2021, DINO, figure 1). Without
    one (mean or sequence pooling reads every patch), it is the attention that a patch receives from the patches, on
    average. The values are the softmax weights as they are, so a map sums to at most 1; the rest went to the prefix.

    Args:
        weights: one tensor [B, heads, T, T] a layer, row = query; T = prefix_tokens + grid_size**2.
        prefix_tokens: tokens before the first patch (class token and registers).
        has_cls: whether token 0 is a class token.
        grid_size: g, patches a side.
        layer: index into `weights`; the last layer by default.

    Raises:
        IndexError: there is no such layer.
        ValueError: the number of tokens does not fit the grid, or there is a class token but no prefix.
    """
    attention = weights[layer].detach().float().mean(dim=1)  # (B, T, T)
    tokens = prefix_tokens + grid_size**2
    if attention.shape[1:] != (tokens, tokens):
        raise ValueError(
            f"attention is over {attention.shape[-1]} tokens, but {prefix_tokens} prefix tokens and "
            f"{grid_size} x {grid_size} patches make {tokens}"
        )
    if has_cls and prefix_tokens == 0:
        raise ValueError("a class token is one of the prefix tokens, but prefix_tokens is 0")
    queries = attention[:, 0] if has_cls else attention[:, prefix_tokens:].mean(dim=1)  # (B, T)
    maps = queries[:, prefix_tokens:].reshape(-1, grid_size, grid_size)
    return np.asarray(maps.cpu().numpy(), dtype=np.float32)
