"""Differences between attention heads: distance, entropy and divergence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def attention_entropy(weights: Sequence[Tensor]) -> NDArray[np.float32]:
    """Return the entropy of each head's attention in bits: float32 [layers, heads], from 0 (one token) to log2 T.

    The mean over all images and queries of `weights`, one tensor [B, heads, T, T] per layer, row = query.
    """
    return _stack([_entropy(layer).mean(dim=(0, 2)) for layer in weights])


def mean_attention_distance(
    weights: Sequence[Tensor], *, prefix_tokens: int, grid_size: int, patch_size: int
) -> NDArray[np.float32]:
    """Return the mean distance between a patch and the patches it attends to, in pixels: float32 [layers, heads].

    The distance between patch centers, weighted by the attention between patches (normalized without class token and
    registers), averaged over all patches and images: Dosovitskiy et al. 2021, figure 7, right.

    Raises:
        ValueError: the number of tokens does not fit the grid.
    """
    tokens = prefix_tokens + grid_size**2
    apart = _distances(grid_size, patch_size)
    means = []
    for layer in weights:
        if layer.shape[-1] != tokens:
            raise ValueError(
                f"attention is over {layer.shape[-1]} tokens, but {prefix_tokens} prefix tokens and "
                f"{grid_size} x {grid_size} patches make {tokens}"
            )
        between = layer.detach().float()[:, :, prefix_tokens:, prefix_tokens:]
        shares = between / between.sum(dim=-1, keepdim=True).clamp(min=1e-12)
        means.append((shares * apart.to(layer.device)).sum(dim=-1).mean(dim=(0, 2)))
    return _stack(means)


def even_attention_distance(*, grid_size: int, patch_size: int) -> float:
    """Return the mean attention distance of uniform attention, in pixels."""
    return float(_distances(grid_size, patch_size).mean())


def head_distance(weights: Sequence[Tensor]) -> NDArray[np.float32]:
    """Return the divergence of any two heads: float32 [layers * heads, layers * heads], from 0 (equal) to 1 (disjoint).

    The Jensen-Shannon divergence of their attention in bits, averaged over queries and images (Clark et al. 2019, What
    does BERT look at, section 6). Heads are sorted by layer.
    """
    heads = torch.cat([layer.detach().float() for layer in weights], dim=1).transpose(0, 1)  # (LH, B, T, T)
    own = _entropy(heads)  # (LH, B, T)
    rows = [
        (_entropy((heads + head) / 2) - (own + entropy) / 2).mean(dim=(1, 2))
        for head, entropy in zip(heads, own, strict=True)
    ]
    return _stack(rows).clip(0.0, 1.0)


def _distances(grid_size: int, patch_size: int) -> Tensor:
    """Return the distances between all patch centers in pixels: float32 [g * g, g * g]."""
    places = torch.stack(torch.meshgrid(torch.arange(grid_size), torch.arange(grid_size), indexing="ij"), dim=-1)
    centers = places.reshape(-1, 2).float() * patch_size
    return torch.cdist(centers, centers)


def _entropy(shares: Tensor) -> Tensor:
    """Return the entropy over the last dimension in bits; 0 log 0 is 0."""
    nats: Tensor = torch.special.entr(shares.detach().float()).sum(dim=-1)
    return nats / float(np.log(2))


def _stack(rows: Sequence[Tensor]) -> NDArray[np.float32]:
    return np.asarray(torch.stack(list(rows)).cpu().numpy(), dtype=np.float32)
