"""Which parameters are decayed."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(net: nn.Module) -> list[dict[str, Any]]:
    """Two groups for an optimizer: matrices and kernels with its weight decay; everything else with none.

    Without decay are vectors (norms, biases, layer scales, temperatures) and the tokens and position embeddings, which are
    activations rather than weights: their names end in `_token` or `_embed` (as in timm and Touvron et al. 2021).
    """
    decayed, spared = [], []
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            activation = name.rpartition(".")[2].endswith(("_token", "_embed"))
            (spared if parameter.ndim < 2 or activation else decayed).append(parameter)
    return [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
