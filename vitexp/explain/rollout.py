"""Attention rollout (Abnar and Zuidema 2020): attention followed through all layers down to the patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitexp.explain.attention import patch_map, read_shares


def rollout(weights: Sequence[Tensor], *, prefix_tokens: int, has_cls: bool, grid_size: int) -> NDArray[np.float32]:
    """How much of each patch reaches the output, by attention and residual connections alone: float32 [B, g, g].

    Every layer passes on half of a token as it is and half by attention averaged over heads: A = (W + I) / 2; the map
    is what the output reads of A_L ... A_1 (section 3). Values are shares: a map sums to at most 1, and to 1 where
    there are no prefix tokens. It knows nothing of the values, the MLPs or the class. Without a class token it is the
    mean over all patches, where each patch's own half power L weighs alike.

    Arguments and errors as in `vitexp.explain.attention.cls_attention`.
    """
    flow = read_shares(weights[-1], prefix_tokens=prefix_tokens, has_cls=has_cls, grid_size=grid_size)[None, None]
    for layer in reversed(weights):  # a row times the matrices, from the output down: no product of two matrices
        flow = (flow + flow @ layer.detach().float().mean(dim=1)) / 2  # (B, 1, T)
    return patch_map(flow[:, 0], prefix_tokens=prefix_tokens, grid_size=grid_size)
