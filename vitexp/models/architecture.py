"""What the shapes of a ViT's tensors say about it. Imports no torch: a header of a file is enough."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Shapes = Mapping[str, Sequence[int]]


def architecture(shapes: Shapes) -> dict[str, Any]:
    """Return the options of a ViT that the shapes of its tensors show."""
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
    elif len(projection) == 4:
        found |= {"stem": "patch", "patch_size": projection[-1]}
    else:  # 5 shifted images of 3 colors
        found |= {"stem": "shifted", "patch_size": math.isqrt(projection[1] // 15)}
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
    return f"{value:g}" if isinstance(value, float) else str(value)
