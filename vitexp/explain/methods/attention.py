"""Where a Vision Transformer looks: maps over the patches, made from recorded attention weights."""

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
    [maps] = head_attention(
        [weights[layer]], prefix_tokens=prefix_tokens, has_cls=has_cls, grid_size=grid_size
    ).swapaxes(0, 1)
    return np.asarray(maps.mean(axis=1))


def head_attention(
    weights: Sequence[Tensor], *, prefix_tokens: int, has_cls: bool, grid_size: int
) -> NDArray[np.float32]:
    """The same for every layer and head: float32 [B, layers, heads, g, g]. Arguments as in `cls_attention`."""
    maps = []
    for layer in weights:
        attention = layer.detach().float()
        shares = read_shares(attention, prefix_tokens=prefix_tokens, has_cls=has_cls, grid_size=grid_size)
        maps.append(patch_map(shares @ attention, prefix_tokens=prefix_tokens, grid_size=grid_size))
    return np.stack(maps, axis=1)


def read_shares(attention: Tensor, *, prefix_tokens: int, has_cls: bool, grid_size: int) -> Tensor:
    """What share of the output each token is, as far as the pooling goes: float32 [T], summing to 1.

    All of it is the class token where there is one; else every patch has the same share. A learned pooling is taken
    for a mean as well.

    Args:
        attention: [..., T, T]; only its shape and device matter.

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
    """The patches' part of values that tokens have, where the patches lie: [..., T] to float32 [..., g, g]."""
    patches = values.detach()[..., prefix_tokens:].float()
    grid = patches.reshape(*patches.shape[:-1], grid_size, grid_size)
    return np.asarray(grid.cpu().numpy(), dtype=np.float32)


def rollout(weights: Sequence[Tensor], *, prefix_tokens: int, has_cls: bool, grid_size: int) -> NDArray[np.float32]:
    """How much of each patch reaches the output, by attention and residual connections alone: float32 [B, g, g].

    Every layer passes on half of a token as it is and half by attention averaged over heads: A = (W + I) / 2; the map
    is what the output reads of A_L ... A_1 (section 3). Values are shares: a map sums to at most 1, and to 1 where
    there are no prefix tokens. It knows nothing of the values, the MLPs or the class. Without a class token it is the
    mean over all patches, where each patch's own half power L weighs alike.

    Arguments and errors as in `vitexp.explain.methods.attention.cls_attention`.
    """
    flow = read_shares(weights[-1], prefix_tokens=prefix_tokens, has_cls=has_cls, grid_size=grid_size)[None, None]
    for layer in reversed(weights):  # a row times the matrices, from the output down: no product of two matrices
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
    """How much the attention to each patch speaks for one class: float32 [B, g, g], 0 or more.

    Every layer adds what its attention brings, R = R + mean over heads of max(gradient * W, 0) times R, starting at
    R = I (equations 5 and 6); the map is what the output reads of R. Without a class token that is the mean over all
    patches; the start, the same for every patch, is then left out.

    Args:
        logits: [B, C], which depend on `weights` in the autograd graph; the graph is kept, for further classes.
        weights: one tensor [B, heads, T, T] a layer.
        classes: B classes, one an image.

    Raises:
        IndexError: there is no such class.
        ValueError: there are not as many classes as images; and as in `vitexp.explain.methods.attention.cls_attention`.
    """
    start = read_shares(weights[-1], prefix_tokens=prefix_tokens, has_cls=has_cls, grid_size=grid_size)[None, None]
    gradients = torch.autograd.grad(class_scores(logits, classes).sum(), list(weights), retain_graph=True)
    flow = start
    for layer, gradient in zip(reversed(weights), reversed(gradients), strict=True):
        positive = (gradient.float() * layer.detach().float()).clamp(min=0).mean(dim=1)
        flow = flow + flow @ positive  # (B, 1, T): row times (I + A), from the output down
    return patch_map((flow - start)[:, 0], prefix_tokens=prefix_tokens, grid_size=grid_size)
