"""Exports of the network, checked against torch: ONNX here, folders for timm and the Hugging Face Hub."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor, nn

from vitexp.errors import UserError, one_line, require
from vitexp.evaluate.hub_export import export_hub
from vitexp.evaluate.timm_export import export_timm, refuse_not_in_timm
from vitexp.runs.finished import FinishedRun

OPSET = 18
# Both sides compute in float32, but in a different order.
ONNX_TOLERANCE = 1e-3


def refuse_impossible(run: FinishedRun, formats: Sequence[str]) -> None:
    """Raise UserError if the network of `run` cannot be exported in one of `formats` on this machine."""
    if "onnx" in formats:
        require("onnx", needed_by="export=onnx")
        require("onnxruntime", needed_by="export=onnx")
    if "timm" in formats:
        refuse_not_in_timm(run)


def export_network(
    run: FinishedRun, kind: str, folder: Path, *, images: NDArray[np.uint8], repository: str = ""
) -> dict[str, Any]:
    """Write the network into `folder` as "onnx", "timm" or "hub"; compare its logits on `images`, uint8 [N, S, S, 3].

    repository: OWNER/NAME on the Hub, for the model card of "hub"; may be empty.
    """
    if kind == "onnx":
        return export_onnx(run, folder / "model.onnx", images=images)
    if kind == "timm":
        return export_timm(run, folder / "timm", images=images)
    return export_hub(run, folder / "hub", images=images, repository=repository)


class _FromPixels(nn.Module):
    """The network with normalization: prepared RGB images, uint8 [B, S, S, 3], to logits, float32 [B, C]."""

    mean: Tensor
    std: Tensor

    def __init__(self, run: FinishedRun) -> None:
        super().__init__()
        self.net = run.net
        self.register_buffer("mean", run.mean.view(1, 3, 1, 1).to(run.device))
        self.register_buffer("std", run.std.view(1, 3, 1, 1).to(run.device))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        return self.net((pixels - self.mean) / self.std)  # type: ignore[no-any-return]


def export_onnx(run: FinishedRun, path: Path, *, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Write an ONNX file and compare the logits of onnxruntime and torch on `images`, uint8 [N, S, S, 3].

    Input "images": uint8 [batch, S, S, 3], RGB, prepared but not normalized; output "logits": float32 [batch, C]; any
    batch size. The metadata contains the class names, data.prepare (both as JSON) and the name of the model.

    Raises UserError if onnx or onnxruntime is missing, or if the logits differ; the file is then removed.
    """
    refuse_impossible(run, ["onnx"])
    import onnx

    module = _FromPixels(run).eval()
    temporary = path.with_name(f".{path.name}")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter is deprecated, and the network contains assertions
            # The new exporter (dynamo=True) needs onnxscript and writes the same graph for our networks.
            torch.onnx.export(
                module,
                (torch.from_numpy(images[:2]).to(run.device),),
                str(temporary),
                input_names=["images"],
                output_names=["logits"],
                dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        model = onnx.load(str(temporary))
        _replace_bool_eye(model)
        _add_metadata(model, run)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(temporary))
        comparison = _compare_onnx(module, temporary, images, device=run.device)
        if comparison["largest_difference"] > ONNX_TOLERANCE * max(1.0, comparison["largest_logit"]):
            raise UserError(
                f"the ONNX file differs from torch by {comparison['largest_difference']:.2g} in a logit; not exported."
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return {"file": path.name, "opset": OPSET, "bytes": path.stat().st_size, **comparison}


def _replace_bool_eye(model: Any) -> None:
    """Make identity matrices float: onnxruntime has no boolean EyeLike, which masks the diagonal in LSA.

    The exporter derives their type from a ConstantOfShape node and casts the result to bool in any case.
    """
    from onnx import TensorProto, helper

    zeros = {node.input[0] for node in model.graph.node if node.op_type == "EyeLike"}
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape" and node.output[0] in zeros:
            del node.attribute[:]
            value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
            node.attribute.append(helper.make_attribute("value", value))


def _add_metadata(model: Any, run: FinishedRun) -> None:
    metadata = {
        "classes": run.classes,
        "prepare": OmegaConf.to_container(run.config.data.prepare, resolve=True),
        "model": run.config.model.name,
    }
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value, ensure_ascii=False)


def _compare_onnx(module: nn.Module, path: Path, images: NDArray[np.uint8], *, device: torch.device) -> dict[str, Any]:
    """Compare logits in two batches of different sizes, to find a graph with a fixed batch size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no other common base class
        raise UserError(f"onnxruntime cannot run this network: {one_line(str(error))}") from error
    batches = [batch for batch in (images[:1], images[1:]) if len(batch)]
    theirs = np.concatenate([session.run(["logits"], {"images": batch})[0] for batch in batches])
    with torch.inference_mode():
        ours = module(torch.from_numpy(images).to(device)).cpu().numpy()
    return {
        "images_compared": len(images),
        "largest_difference": float(np.abs(ours - theirs).max()),
        "largest_logit": float(np.abs(ours).max()),
        "same_predictions": int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
    }
