"""The net as timm stores one: a folder with config.json and model.safetensors, for those ViTs that timm has as well.

    timm.create_model("local-dir:FOLDER", pretrained=True)

loads it.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from vitexp.errors import UserError
from vitexp.finished_run import FinishedRun
from vitexp.models import ViT

# Every argument of timm's VisionTransformer that this name would set is given besides.
ARCHITECTURE = "vit_tiny_patch16_224"
TOLERANCE = 1e-4


def export_timm(run: FinishedRun, folder: Path, *, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Write `folder`, and where timm is installed compare its logits for `images` (uint8 [N, S, S, 3]) to ours.

    The images that timm's net takes are normalized by the mean and std of config.json. Raises UserError for a net that
    timm does not have, and where the logits differ.
    """
    net = refuse_unknown_to_timm(run)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_config(run, net), indent=2, ensure_ascii=False) + "\n")
    save_file(_weights(net), folder / "model.safetensors", metadata={"format": "pt"})
    return {"folder": folder.name, **_compared(run, folder, images)}


def refuse_unknown_to_timm(run: FinishedRun) -> ViT:
    """The net, which timm has too. Raises UserError for another."""
    net = run.net
    if not isinstance(net, ViT):
        raise UserError(f"export=timm is for the ViTs of vitexp; {run.config.model.name} is a {type(net).__name__}.")
    for key, plain in {
        "stem": ("patch",),
        "pool": ("cls", "gap"),
        "lsa": (False,),
        "head": ("linear",),
        "upsample": (None,),
        "mlp_conv": (False,),
        "distillation_token": (False,),
    }.items():
        if (value := run.config.model.get(key, plain[0])) not in plain:
            raise UserError(
                f"export=timm: timm's ViT has no {key}={value}; only {key}={' or '.join(map(str, plain))} is the same "
                "there. export=onnx takes every net."
            )
    return net


def _config(run: FinishedRun, net: ViT) -> dict[str, Any]:
    """config.json as timm reads it."""
    model = run.config.model
    gap = model.get("pool", "cls") == "gap"
    arguments = {
        "img_size": run.image_size,
        "patch_size": net.patch_size,
        "embed_dim": net.dim,
        "depth": net.depth,
        "num_heads": model.get("num_heads", 3),
        "mlp_ratio": model.get("mlp_ratio", 4.0),
        "global_pool": "avg" if gap else "token",
        "class_token": not gap,
        "reg_tokens": net.registers,
        "qk_norm": model.get("qk_norm", False),
        "init_values": model.get("layer_scale"),
        "pos_embed": "none" if net.pos_embed is None else "learn",
    }
    size = [3, run.image_size, run.image_size]
    return {
        "architecture": ARCHITECTURE,
        "num_classes": len(run.classes),
        "num_features": net.dim,
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "label_names": run.classes,
        "pretrained_cfg": {
            "input_size": size,
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": run.mean.tolist(),
            "std": run.std.tolist(),
            "num_classes": len(run.classes),
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def _weights(net: ViT) -> dict[str, Tensor]:
    """The names are timm's already; fixed positions, which are no part of our weights, are learned ones there."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    if net.pos_embed is not None and "pos_embed" not in weights:
        weights["pos_embed"] = net.pos_embed.detach().cpu().contiguous()
    return weights


def _compared(run: FinishedRun, folder: Path, images: NDArray[np.uint8]) -> dict[str, Any]:
    if find_spec("timm") is None:
        return {"images_compared": 0, "note": "timm is not installed, so the logits were not compared"}
    import timm

    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().to(run.device)
    prepared = run.prepared(images)
    with torch.inference_mode():
        difference = float((run.net(prepared) - theirs(prepared)).abs().max())
    if difference > TOLERANCE:
        raise UserError(f"timm's net differs from ours by {difference:.2g} in a logit; {folder} is of no use.")
    return {"images_compared": len(images), "largest_difference": difference}
