"""What the shapes of a network's tensors say about it. Imports no torch: a header of a file is enough."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

Shapes = Mapping[str, Sequence[int]]

# A tensor that every network of a family has, under timm's names, and no other.
_TELLING = {
    "ViT": "blocks.0.norm1.weight",
    "Swin Transformer": "layers.0.blocks.0.attn.relative_position_bias_table",
    "PVT v2": "stages.0.blocks.0.attn.kv.weight",
}


def family_of(names: Container[str]) -> str | None:
    """Return the family of the network whose tensors have these names: the fact `family` of its class."""
    return next((family for family, name in _TELLING.items() if name in names), None)


def other_family(names: Container[str], family: str | None) -> str:
    """Return why tensors with these names are not those of a network of `family`; "" if they are, or it is unknown."""
    theirs = family_of(names)
    return f"it is a {theirs}, but this model is a {family}" if family and theirs not in (None, family) else ""


def architecture(shapes: Shapes) -> dict[str, Any]:
    """Return the options of a network that the shapes of its tensors show."""
    return {"Swin Transformer": _swin, "PVT v2": _pvt}.get(family_of(shapes) or "", _vit)(shapes)


def _swin(shapes: Shapes) -> dict[str, Any]:
    depths = _depths(shapes, "layers")
    tables = [shapes[f"layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in range(len(depths))]
    return {
        "dim": (dim := shapes["layers.0.blocks.0.norm1.weight"][0]),
        "depths": depths,
        "num_heads": [heads for _, heads in tables],
        "mlp_ratio": shapes["layers.0.blocks.0.mlp.fc1.weight"][0] / dim,
        "lsa": "layers.0.blocks.0.attn.scale" in shapes,
        **_patches(shapes["patch_embed.proj.weight"]),
    }


def _pvt(shapes: Shapes) -> dict[str, Any]:
    depths = _depths(shapes, "stages")
    first = [f"stages.{stage}.blocks.0" for stage in range(len(depths))]
    dims = [shapes[f"{block}.norm1.weight"][0] for block in first]
    hidden = [shapes[f"{block}.mlp.fc1.weight"][0] for block in first]
    return {
        "dims": dims,
        "depths": depths,
        "reductions": [shapes.get(f"{block}.attn.sr.weight", (1,))[-1] for block in first],
        "mlp_ratios": [channels / dim for channels, dim in zip(hidden, dims, strict=True)],
        "patch_size": (shapes["patch_embed.proj.weight"][-1] + 1) // 2,
    }


def _depths(shapes: Shapes, stages: str) -> list[int]:
    """Return the number of blocks of each stage."""
    found = {match.groups() for name in shapes if (match := re.match(rf"{stages}\.(\d+)\.blocks\.(\d+)\.", name))}
    stage_of = [int(stage) for stage, _ in found]
    return [stage_of.count(stage) for stage in range(max(stage_of) + 1)]


def _patches(projection: Sequence[int]) -> dict[str, Any]:
    if len(projection) == 4:
        return {"stem": "patch", "patch_size": projection[-1]}
    return {"stem": "shifted", "patch_size": math.isqrt(projection[1] // 15)}  # 5 shifted images of 3 colors


def _vit(shapes: Shapes) -> dict[str, Any]:
    dim = shapes["blocks.0.norm1.weight"][0]
    found: dict[str, Any] = {
        "dim": dim,
        "depth": 1 + max(int(match[1]) for name in shapes if (match := re.match(r"blocks\.(\d+)\.", name))),
        "registers": shapes["reg_token"][1] if "reg_token" in shapes else 0,
        "qk_norm": "blocks.0.attn.q_norm.weight" in shapes,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in shapes else None,  # any value; the learned ones are loaded
        "lsa": "blocks.0.attn.scale" in shapes,
        "position_embedding": "learned" if "pos_embed" in shapes else "none",
    }
    if (hidden := shapes.get("blocks.0.mlp.fc1.weight")) is not None:
        found["mlp_ratio"] = hidden[0] / dim
    projection = shapes.get("patch_embed.proj.weight")
    if projection is None:
        stages = sum(bool(re.fullmatch(r"patch_embed\.layers\.\d+\.weight", name)) for name in shapes)
        found |= {"stem": "conv", "patch_size": 2**stages}
    else:
        found |= _patches(projection)
    return found


def difference(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Return what options the weights need that this model does not have; "" if they are those of the same network.

    Options that are missing from either are not compared.
    """
    wrong = [key for key, value in theirs.items() if key in mine and mine[key] != value]
    if not wrong:
        return ""
    fitting = " ".join(f"model.{key}={_typed(theirs[key])}" for key in wrong)
    return f"it needs {fitting}, but this model has {', '.join(_typed(mine[key]) for key in wrong)}"


def _typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
