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
from torch import Tensor

from vitexp.errors import UserError, one_line, require
from vitexp.models.timm_names import weights_for_timm
from vitexp.runs.finished import FinishedRun
from vitexp.system.disk import write_atomically
from vitexp.text import shortened

# Of the largest logit: both sides compute in float32, but in a different order.
TIMM_TOLERANCE = 1e-4
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
    if not hasattr(run.net, "timm_config"):
        raise NotInTimm(
            f"{run.config.model.name} is a {type(run.net).__name__}, not a ViT, Swin Transformer or PVT v2 of vitexp "
            "or a network of timm."
        )
    try:
        stated: dict[str, Any] = run.net.timm_config()  # type: ignore[operator]
    except ValueError as error:
        raise NotInTimm(str(error)) from error
    preparation = {
        "input_size": [3, run.image_size, run.image_size],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": run.mean.tolist(),
        "std": run.std.tolist(),
        "num_classes": len(run.classes),
        "pool_size": None,
    }
    pretrained_cfg = preparation | stated.pop("pretrained_cfg")
    config = {"num_classes": len(run.classes), "label_names": run.classes, **stated, "pretrained_cfg": pretrained_cfg}
    files = TimmFiles(config, weights_for_timm(run.net))
    _refuse_other_weights(run, files)
    return files


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


def _refuse_other_weights(run: FinishedRun, files: TimmFiles) -> None:
    """Raise NotInTimm if the weights are not those of timm's network, for example in a subclass."""
    import timm

    try:
        with torch.device("meta"):
            sizes = {**files.config["model_args"], "num_classes": len(run.classes)}
            model = timm.create_model(files.config["architecture"], **sizes)
    except _REFUSALS as error:
        raise _differs(run, f"timm cannot make it ({one_line(str(error))})") from error
    theirs = {name: tensor.shape for name, tensor in model.state_dict().items()}
    ours = {name: tensor.shape for name, tensor in files.weights.items()}
    if other := sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name)):
        raise _differs(run, f"its weights differ in {shortened(other, most=3)}")
