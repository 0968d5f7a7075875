"""Parameter groups: which parameters are decayed, and which learn more slowly."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

Named = list[tuple[str, nn.Parameter]]


def parameter_groups(net: nn.Module, *, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Return two groups of named parameters: matrices and kernels with the optimizer's weight decay, others without.

    The others are vectors (norms, biases, layer scales) and, by their names, tokens and position embeddings (`_token`,
    `_embed`, as in timm; Touvron et al. 2021) and temperatures (`scale`), whatever their shape.

    With a `layer_decay` below 1 there are two such groups per layer, the head's first. The learning rate of a group is
    multiplied by its "lr_scale": 1 for the head, multiplied by `layer_decay` at each block below it, and once more
    for stem, tokens and positions together (Clark et al. 2020, ELECTRA; for ViTs Bao et al. 2022, BEiT).

    Raises ValueError for a `layer_decay` below 1 if the net has no blocks.
    """
    learning = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    if layer_decay == 1.0:
        return _two_groups(learning)
    blocks = {int(found[1]) for name, _ in learning if (found := re.match(r"blocks\.(\d+)\.", name))}
    if not blocks:
        raise ValueError(f"training.layer_decay={layer_decay} needs blocks, which this model does not have; use 1.0.")
    layers: dict[int, Named] = {}
    for name, parameter in learning:
        layers.setdefault(_layer(name, head=max(blocks) + 2), []).append((name, parameter))
    top = max(layers)
    return [
        {**group, "lr_scale": layer_decay ** (top - layer)}
        for layer in sorted(layers, reverse=True)
        for group in _two_groups(layers[layer])
        if group["params"]
    ]


def _two_groups(parameters: Named) -> list[dict[str, Any]]:
    decayed: Named = []
    spared: Named = []
    for name, parameter in parameters:
        no_weight = name.rpartition(".")[2].endswith(("_token", "_embed", "scale"))
        (spared if parameter.ndim < 2 or no_weight else decayed).append((name, parameter))
    return [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]


def _layer(name: str, *, head: int) -> int:
    """Return 0 for stem, tokens and positions, then 1 for the first block and so on; the rest belongs to the head."""
    if found := re.match(r"blocks\.(\d+)\.", name):
        return int(found[1]) + 1
    return 0 if name.partition(".")[0].endswith(("_embed", "_token")) else head
