"""Maps over the patches of a Vision Transformer, computed from its attention weights.

Rollout: Abnar and Zuidema 2020, Quantifying attention flow in transformers, arXiv 2005.00928. Relevance: Chefer, Gur
and Wolf 2021, Generic attention-model explainability, arXiv 2103.15679.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitexp.explain.methods.grad_cam import class_scores


def cls_attention(
    weights: Sequence[Tensor], *, prefix_tokens: int, has_cls: bool, grid_size: int, layer: int = -1
) -> NDArray[np.float32]:
    """Return how much one layer attends to each patch, averaged over its heads: float32 [B, g, g].

    With a class token, the map is the attention of this token to the patches (Caron et al. 2021, DINO, figure 1).
    Without one, it is the average attention that a patch receives from the patches. The values are softmax weights, so
    a map sums to at most 1; the rest is attention to the prefix tokens.

    Args:
        weights: one tensor [B, heads, T, T] per layer, row = query; T = prefix_tokens + grid_size**2.
        prefix_tokens: tokens before the first patch (class token and registers).
        has_cls: whether token 0 is a class token.
        grid_size: g, patches per side.
        layer: index into `weights`; by default the last layer.

    Raises:
        IndexError: the layer does not exist.
        ValueError: the number of tokens does not fit the grid, or there is a class token but no prefix.
    """
    [maps] = head_attention(
        [weights[layer]], prefix_tokens=prefix_tokens, has_cls=has_cls, grid_size=grid_size
    ).swapaxes(0, 1)
    return np.asarray(maps.mean(axis=1))


def head_attention(
    weights: Sequence[Tensor], *, prefix_tokens: int, has_cls: bool, grid_size: int
) -> NDArray[np.float32]:
    """Return the maps of each layer and head: float32 [B, layers, heads, g, g]. Arguments as in `cls_attention`."""
    maps = []
    for layer in weights:
        attention = layer.detach().float()
        shares = read_shares(attention, prefix_tokens=prefix_tokens, has_cls=has_cls, grid_size=grid_size)
        maps.append(patch_map(shares @ attention, prefix_tokens=prefix_tokens, grid_size=grid_size))
    return np.stack(maps, axis=1)


def read_shares(attention: Tensor, *, prefix_tokens: int, has_cls: bool, grid_size: int) -> Tensor:
    """Return the weight of each token in the pooling: float32 [T], summing to 1.

    The class token has all the weight if there is one; otherwise all patches have equal weights. A learned pooling is
    treated as a mean.

    Args:
        attention: [..., T, T]; only its shape and device are used.

    Raises:
        ValueError: as in `cls_attention`.
    """
    tokens = prefix_tokens + grid_size**2
    if attention.shape[-2:] != (tokens, tokens):
        raise ValueError(
            f"attention is over {attention.shape[-1]} tokens, but {prefix_tokens} prefix tokens and "
            f"{grid_size} x {grid_size} patches make {tokens}"
        )
    if has_cls and prefix_tokens == 0:
        raise ValueError("a class token is one of the prefix tokens, but prefix_tokens is 0")
    shares = torch.zeros(tokens, device=attention.device)
    if has_cls:
        shares[0] = 1.0
    else:
        shares[prefix_tokens:] = 1.0 / grid_size**2
    return shares


def patch_map(values: Tensor, *, prefix_tokens: int, grid_size: int) -> NDArray[np.float32]:
    """Arrange the values of patch tokens on their grid: [..., T] to float32 [..., g, g]."""
    patches = values.detach()[..., prefix_tokens:].float()
    grid = patches.reshape(*patches.shape[:-1], grid_size, grid_size)
    return np.asarray(grid.cpu().numpy(), dtype=np.float32)


def rollout(weights: Sequence[Tensor], *, prefix_tokens: int, has_cls: bool, grid_size: int) -> NDArray[np.float32]:
    """Return how much of each patch reaches the output through attention and residuals: float32 [B, g, g].

    Attention rollout (Abnar and Zuidema 2020, section 3): every layer passes on half of a token unchanged and half by
    attention averaged over heads, A = (W + I) / 2; the map is what the output reads from A_L ... A_1. A map sums to at
    most 1, and to 1 if there are no prefix tokens. It ignores the values, the MLPs and the class.

    Arguments and errors as in `cls_attention`.
    """
    flow = read_shares(weights[-1], prefix_tokens=prefix_tokens, has_cls=has_cls, grid_size=grid_size)[None, None]
    for layer in reversed(weights):  # a row vector times each matrix, from the output down
        flow = (flow + flow @ layer.detach().float().mean(dim=1)) / 2  # (B, 1, T)
    return patch_map(flow[:, 0], prefix_tokens=prefix_tokens, grid_size=grid_size)


def relevance(
    logits: Tensor,
    weights: Sequence[Tensor],
    *,
    classes: Sequence[int] | Tensor,
    prefix_tokens: int,
    has_cls: bool,
    grid_size: int,
) -> NDArray[np.float32]:
    """Return how much the attention to each patch supports a class: float32 [B, g, g], 0 or more.

    Relevance (Chefer et al. 2021, equations 5 and 6): every layer adds R = R + mean over heads of max(gradient * W, 0)
    times R, starting from R = I; the map is what the output reads from R. Without a class token, the constant
    contribution of R = I is left out.

    Args:
        logits: [B, C], which depend on `weights` in the autograd graph; the graph is retained for further classes.
        weights: one tensor [B, heads, T, T] per layer.
        classes: B classes, one per image.

    Raises:
        IndexError: the class does not exist.
        ValueError: the number of classes is not B; and as in `cls_attention`.
    """
    start = read_shares(weights[-1], prefix_tokens=prefix_tokens, has_cls=has_cls, grid_size=grid_size)[None, None]
    gradients = torch.autograd.grad(class_scores(logits, classes).sum(), list(weights), retain_graph=True)
    flow = start
    for layer, gradient in zip(reversed(weights), reversed(gradients), strict=True):
        positive = (gradient.float() * layer.detach().float()).clamp(min=0).mean(dim=1)
        flow = flow + flow @ positive  # (B, 1, T): a row vector times (I + A), from the output down
    return patch_map((flow - start)[:, 0], prefix_tokens=prefix_tokens, grid_size=grid_size)
