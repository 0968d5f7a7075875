"""Which parameters are decayed."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(net: nn.Module) -> list[dict[str, Any]]:
    """Two groups of named parameters: matrices and kernels with the optimizer's weight decay; all else with none.

    Without decay are vectors (norms, biases, layer scales), and, by their names, what is no weight whatever its shape:
    tokens and position embeddings (`_token`, `_embed`, as in timm; Touvron et al. 2021) and temperatures (`scale`).
    """
    decayed: list[tuple[str, nn.Parameter]] = []
    spared: list[tuple[str, nn.Parameter]] = []
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            no_weight = name.rpartition(".")[2].endswith(("_token", "_embed", "scale"))
            (spared if parameter.ndim < 2 or no_weight else decayed).append((name, parameter))
    return [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
