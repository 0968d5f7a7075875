"""Class-specific relevance of patches: gradient times attention (Chefer et al. 2021, ICCV, "generic" method)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitexp.explain.attention import patch_map, read_shares
from vitexp.explain.grad_cam import class_scores


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
        ValueError: there are not as many classes as images; and as in `vitexp.explain.attention.cls_attention`.
    """
    start = read_shares(weights[-1], prefix_tokens=prefix_tokens, has_cls=has_cls, grid_size=grid_size)[None, None]
    gradients = torch.autograd.grad(class_scores(logits, classes).sum(), list(weights), retain_graph=True)
    flow = start
    for layer, gradient in zip(reversed(weights), reversed(gradients), strict=True):
        positive = (gradient.float() * layer.detach().float()).clamp(min=0).mean(dim=1)
        flow = flow + flow @ positive  # (B, 1, T): row times (I + A), from the output down
    return patch_map((flow - start)[:, 0], prefix_tokens=prefix_tokens, grid_size=grid_size)
