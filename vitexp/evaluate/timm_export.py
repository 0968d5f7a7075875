"""A folder from which timm creates the network, checked against torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from vitexp.errors import UserError, one_line, require
from vitexp.models import ViT
from vitexp.runs.finished import FinishedRun
from vitexp.system.disk import write_atomically
from vitexp.text import shortened

# Of the largest logit: both sides compute in float32, but in a different order.
TIMM_TOLERANCE = 1e-4
# config.json sets every argument of timm's VisionTransformer that depends on this name.
ARCHITECTURE = "vit_tiny_patch16_224"
# The options of our ViT that timm's does not have, with the values for which both are equal.
_SAME_IN_TIMM: dict[str, tuple[Any, ...]] = {
    "stem": ("patch",),
    "pool": ("cls", "gap"),
    "lsa": (False,),
    "head": ("linear",),
    "upsample": (None,),
    "mlp_conv": (False,),
    "distillation_token": (False,),
}
# What timm raises for weights or arguments that do not fit.
_REFUSALS = (RuntimeError, TypeError, ValueError, AssertionError)


class NotInTimm(UserError):
    """A network that timm does not have. reason: why, as a sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"export=timm: {reason} export=onnx supports every network.")
        self.reason = reason


@dataclass(frozen=True)
class TimmFiles:
    """What timm reads: the content of config.json, and weights under timm's names."""

    config: dict[str, Any]
    weights: dict[str, Tensor]


def refuse_not_in_timm(run: FinishedRun) -> None:
    """Raise NotInTimm if timm has no equivalent of the network, and ConfigError if timm is missing."""
    require("timm", needed_by="export=timm")
    files_for_timm(run)


def export_timm(run: FinishedRun, folder: Path, *, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Write a folder for timm.create_model("local-dir:FOLDER") and compare logits on `images`, uint8 [N, S, S, 3].

    timm's network takes images normalized by the mean and std in config.json. Raises ConfigError if timm is missing,
    and NotInTimm if it does not have this network or if the logits differ; the files are then removed.
    """
    require("timm", needed_by="export=timm")
    files = files_for_timm(run)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, files)
    save_file(files.weights, folder / "model.safetensors", metadata={"format": "pt"})
    try:
        compared = compare_with_timm(run, folder, images)
    except NotInTimm:
        for name in ("config.json", "model.safetensors"):
            (folder / name).unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    return {"folder": folder.name, **compared}


def files_for_timm(run: FinishedRun) -> TimmFiles:
    """Return what timm reads; needs timm. Raises NotInTimm if timm has no equivalent of the network.

    Only `compare_with_timm` finds a network that computes something else from the same weights.
    """
    net = run.net
    return _of_vit(run, net) if isinstance(net, ViT) else _of_other(run, net)


def write_config(folder: Path, files: TimmFiles) -> None:
    """Write config.json."""
    write_atomically(folder / "config.json", json.dumps(files.config, indent=2, ensure_ascii=False) + "\n")


def compare_with_timm(run: FinishedRun, folder: Path, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Compare the logits of the network that timm reads from `folder` with ours, on `images`, uint8 [N, S, S, 3].

    Raises NotInTimm if timm cannot read the folder, or if the logits differ.
    """
    import timm

    try:
        theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().to(run.device)
    except _REFUSALS as error:
        raise _differs(run, f"timm cannot read it ({one_line(str(error))})") from error
    prepared = run.prepared(images)
    with torch.inference_mode():
        ours = run.net(prepared)
        difference, largest = float((ours - theirs(prepared)).abs().max()), float(ours.abs().max())
    if not difference <= TIMM_TOLERANCE * max(1.0, largest):  # also for NaN
        raise _differs(run, f"it differs from timm's by {difference:.2g} in a logit")
    return {"images_compared": len(images), "largest_difference": difference}


def _differs(run: FinishedRun, how: str) -> NotInTimm:
    return NotInTimm(f"{run.config.model.name} ({type(run.net).__name__}) is not a network of timm: {how}.")


def _of_vit(run: FinishedRun, net: ViT) -> TimmFiles:
    for key, same in _SAME_IN_TIMM.items():
        if (value := run.config.model.get(key, same[0])) not in same:
            raise NotInTimm(
                f"timm's ViT has no {key}={value}; only {key}={' or '.join(map(str, same))} is the same there."
            )
    files = TimmFiles(_vit_config(run, net), _vit_weights(net))
    _refuse_other_weights(run, files)
    return files


def _of_other(run: FinishedRun, net: nn.Module) -> TimmFiles:
    """Return the files for a network that describes itself to timm."""
    if not hasattr(net, "timm_config"):
        raise NotInTimm(
            f"{run.config.model.name} is a {type(net).__name__}, not a ViT, Swin Transformer or PVT v2 of vitexp or a "
            "network of timm."
        )
    try:
        stated: dict[str, Any] = net.timm_config()  # type: ignore[operator]
    except ValueError as error:
        raise NotInTimm(str(error)) from error
    pretrained_cfg = _preparation_for_timm(run) | stated.pop("pretrained_cfg")
    config = {"num_classes": len(run.classes), "label_names": run.classes, **stated, "pretrained_cfg": pretrained_cfg}
    weights = getattr(net, "net", net).state_dict()  # without the prefix of a network that is timm's
    return TimmFiles(config, {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})


def _vit_weights(net: ViT) -> dict[str, Tensor]:
    """Return the weights under timm's names, which are ours."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    if net.pos_embed is not None:  # a fixed one, which our weights omit, is a parameter there
        weights.setdefault("pos_embed", net.pos_embed.detach().cpu().contiguous())
    return weights


def _refuse_other_weights(run: FinishedRun, files: TimmFiles) -> None:
    """Raise NotInTimm if the weights are not those of timm's network, for example in a subclass."""
    import timm

    try:
        with torch.device("meta"):
            model = timm.create_model(ARCHITECTURE, num_classes=len(run.classes), **files.config["model_args"])
    except _REFUSALS as error:
        raise _differs(run, f"timm cannot make it ({one_line(str(error))})") from error
    theirs = {name: tensor.shape for name, tensor in model.state_dict().items()}
    ours = {name: tensor.shape for name, tensor in files.weights.items()}
    if other := sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name)):
        raise NotInTimm(
            f"{run.config.model.name} ({type(run.net).__name__}) is not timm's ViT: its weights differ in "
            f"{shortened(other, most=3)}."
        )


def _vit_config(run: FinishedRun, net: ViT) -> dict[str, Any]:
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
    return {
        "architecture": ARCHITECTURE,
        "num_classes": len(run.classes),
        "num_features": net.dim,
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "label_names": run.classes,
        "pretrained_cfg": {
            **_preparation_for_timm(run),
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def _preparation_for_timm(run: FinishedRun) -> dict[str, Any]:
    return {
        "input_size": [3, run.image_size, run.image_size],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": run.mean.tolist(),
        "std": run.std.tolist(),
        "num_classes": len(run.classes),
        "pool_size": None,
    }
