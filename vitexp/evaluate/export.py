"""Exports of the network, checked against torch: ONNX, and a folder for timm."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from vitexp.errors import UserError, one_line, require
from vitexp.models import ViT
from vitexp.runs.finished import FinishedRun
from vitexp.text import shortened

OPSET = 18
# Both sides compute in float32, but in a different order.
ONNX_TOLERANCE = 1e-3
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


def refuse_impossible(run: FinishedRun, formats: Sequence[str]) -> None:
    """Raise UserError if the network of `run` cannot be exported in one of `formats` on this machine."""
    if "onnx" in formats:
        require("onnx", needed_by="export=onnx")
        require("onnxruntime", needed_by="export=onnx")
    if "timm" in formats:
        _as_timm(run)


def export_network(run: FinishedRun, kind: str, folder: Path, *, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Write the network into `folder` as "onnx" or "timm" and compare its logits on `images`, uint8 [N, S, S, 3]."""
    if kind == "onnx":
        return export_onnx(run, folder / "model.onnx", images=images)
    return export_timm(run, folder / "timm", images=images)


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


def export_timm(run: FinishedRun, folder: Path, *, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Write a folder for timm.create_model("local-dir:FOLDER") and compare logits on `images`, uint8 [N, S, S, 3].

    timm's network takes images normalized by the mean and std in config.json. Without timm nothing is compared.
    Raises UserError if timm does not have this network, or if the logits differ.
    """
    net = _as_timm(run)
    if not isinstance(net, ViT):
        return _export_other(run, net, folder, images=images)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(_timm_config(run, net), indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(config, encoding="utf-8")
    save_file(_timm_weights(net), folder / "model.safetensors", metadata={"format": "pt"})
    return {"folder": folder.name, **_compare_timm(run, folder, images)}


def _export_other(run: FinishedRun, net: Any, folder: Path, *, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Do the same for a network that describes itself to timm."""
    stated = net.timm_config()
    pretrained_cfg = _preparation_for_timm(run) | stated.pop("pretrained_cfg")
    config = {"num_classes": len(run.classes), "label_names": run.classes, **stated, "pretrained_cfg": pretrained_cfg}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    weights = getattr(net, "net", net).state_dict()  # without the prefix of a network that is timm's
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return {"folder": folder.name, **_compare_timm(run, folder, images)}


def _as_timm(run: FinishedRun) -> nn.Module:
    """Return the network. Raises UserError if timm has no equivalent."""
    net = run.net
    if not isinstance(net, ViT):
        if not hasattr(net, "timm_config"):
            raise UserError(
                "export=timm needs a ViT, Swin Transformer or PVT v2 of vitexp, or a network of timm; "
                f"{run.config.model.name} is a {type(net).__name__}. export=onnx supports every network."
            )
        try:
            net.timm_config()  # type: ignore[operator]
        except ValueError as error:
            raise UserError(f"export=timm: {error} export=onnx supports every network.") from error
        return net
    for key, same in _SAME_IN_TIMM.items():
        if (value := run.config.model.get(key, same[0])) not in same:
            raise UserError(
                f"export=timm: timm's ViT has no {key}={value}; only {key}={' or '.join(map(str, same))} is the same "
                "there. export=onnx supports every network."
            )
    _refuse_other_weights(run, net)
    return net


def _timm_weights(net: ViT) -> dict[str, Tensor]:
    """Return the weights under timm's names, which are ours."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    if net.pos_embed is not None:  # a fixed one, which our weights omit, is a parameter there
        weights.setdefault("pos_embed", net.pos_embed.detach().cpu().contiguous())
    return weights


def _refuse_other_weights(run: FinishedRun, net: ViT) -> None:
    """Raise UserError if the weights are not those of timm's network, for example in a subclass; needs timm."""
    if find_spec("timm") is None:
        return
    import timm

    with torch.device("meta"):
        model = timm.create_model(ARCHITECTURE, num_classes=len(run.classes), **_timm_config(run, net)["model_args"])
    theirs = {name: tensor.shape for name, tensor in model.state_dict().items()}
    ours = {name: tensor.shape for name, tensor in _timm_weights(net).items()}
    if other := sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name)):
        raise UserError(
            f"export=timm: {run.config.model.name} ({type(net).__name__}) is not timm's ViT: its weights differ in "
            f"{shortened(other, most=3)}; export=onnx supports every network."
        )


def _timm_config(run: FinishedRun, net: ViT) -> dict[str, Any]:
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


def _compare_timm(run: FinishedRun, folder: Path, images: NDArray[np.uint8]) -> dict[str, Any]:
    if find_spec("timm") is None:
        return {"images_compared": 0, "note": "timm is not installed, so the logits were not compared"}
    import timm

    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().to(run.device)
    prepared = run.prepared(images)
    with torch.inference_mode():
        difference = float((run.net(prepared) - theirs(prepared)).abs().max())
    if difference > TIMM_TOLERANCE:
        raise UserError(f"timm's network differs from ours by {difference:.2g} in a logit; do not use {folder}.")
    return {"images_compared": len(images), "largest_difference": difference}
