"""Parameter groups: which parameters are decayed, and which learn more slowly."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

Named = list[tuple[str, nn.Parameter]]
_BLOCK = re.compile(r"((?:\w+\.\d+\.)?)blocks\.\d+(?=\.)")  # blocks.0, or those of a stage: layers.0.blocks.0


def parameter_groups(net: nn.Module, *, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Return two groups of named parameters: matrices and kernels with the optimizer's weight decay, others without.

    The others are vectors (norms, biases, layer scales) and, by their names, tokens and position embeddings (`_token`,
    `_embed`, as in timm; Touvron et al. 2021), tables of position biases (`_table`) and temperatures (`scale`),
    whatever their shape.

    With a `layer_decay` below 1 there are two such groups per layer, the head's first. The learning rate of a group is
    multiplied by its "lr_scale": 1 for the head, multiplied by `layer_decay` at each block below it, and once more
    for stem, tokens and positions together (Clark et al. 2020, ELECTRA; for ViTs Bao et al. 2022, BEiT). Where blocks
    form stages, what shrinks the map before a stage belongs to its first block, and a norm after it to its last. A net
    with other layers states them itself: `layers_of_parameters` returns a number by name, 0 for the stem.

    Raises ValueError for a `layer_decay` below 1 if the net has no blocks.
    """
    learning = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    if layer_decay == 1.0:
        return _two_groups(learning)
    names = [name for name, _ in learning]
    stated: Any = getattr(net, "layers_of_parameters", None)
    layer_of = _layers(names) if stated is None else stated()
    if len(set(layer_of.values())) < 3:
        raise ValueError(f"training.layer_decay={layer_decay} needs blocks, which this model does not have; use 1.0.")
    layers: dict[int, Named] = {}
    for name, parameter in learning:
        layers.setdefault(layer_of[name], []).append((name, parameter))
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
        no_weight = name.rpartition(".")[2].endswith(("_token", "_embed", "_table", "scale"))
        (spared if parameter.ndim < 2 or no_weight else decayed).append((name, parameter))
    return [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]


def _layers(names: list[str]) -> dict[str, int]:
    """Return 0 for stem, tokens and positions, then 1 for the first block and so on; the rest belongs to the head."""
    found = {match[0]: match[1] for name in names if (match := _BLOCK.match(name))}
    stages = dict(sorted(found.items(), key=lambda each: [int(part) for part in each[0].split(".") if part.isdigit()]))
    numbers = {block: number for number, block in enumerate(stages, start=1)}
    layers: dict[str, int] = {}
    for name in names:
        of_stage = [numbers[block] for block, stage in stages.items() if stage and name.startswith(stage)]
        if match := _BLOCK.match(name):
            layers[name] = numbers[match[0]]
        elif of_stage:
            layers[name] = of_stage[0] if ".downsample." in name else of_stage[-1]
        else:
            layers[name] = 0 if name.partition(".")[0].endswith(("_embed", "_token")) else len(stages) + 1
    return layers
