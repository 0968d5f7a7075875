"""The net for other programs, in the formats that were asked for."""

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
from safetensors.torch import save_file
from torch import Tensor, nn

from vitexp.errors import UserError, one_line
from vitexp.models import ViT
from vitexp.runs.finished import FinishedRun


def refuse_impossible(run: FinishedRun, kinds: Sequence[str]) -> None:
    """Raise UserError for the first of `kinds` in which the net of `run` cannot be exported here."""
    if "onnx" in kinds:
        refuse_without_onnx()
    if "timm" in kinds:
        refuse_unknown_to_timm(run)


def export(run: FinishedRun, kind: str, folder: Path, *, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Write the net into `folder`, check it on `images`, and tell of both."""
    if kind == "onnx":
        return export_onnx(run, folder / "model.onnx", images=images)
    return export_timm(run, folder / "timm", images=images)


OPSET = 18
# Both compute in float32, but in another order.
TOLERANCE = 1e-3


class _FromPixels(nn.Module):
    """uint8 [B, S, S, 3], RGB, as data.prepare leaves an image, to logits float32 [B, C]."""

    mean: Tensor
    std: Tensor

    def __init__(self, run: FinishedRun) -> None:
        super().__init__()
        self.net = run.net
        self.register_buffer("mean", run.mean.view(1, 3, 1, 1).to(run.device))
        self.register_buffer("std", run.std.view(1, 3, 1, 1).to(run.device))

    def forward(self, images: Tensor) -> Tensor:
        unit = images.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        return self.net((unit - self.mean) / self.std)  # type: ignore[no-any-return]


def export_onnx(run: FinishedRun, path: Path, *, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Write the net to `path`, and what onnxruntime makes of `images` (uint8 [N, S, S, 3]) compared to torch.

    Input "images": uint8 [batch, S, S, 3], RGB, prepared but not normalized; output "logits": float32 [batch, C]; any
    batch. The names of the classes and data.prepare are in the file's metadata ("classes", "prepare", as JSON).

    Raises UserError where onnx or onnxruntime is not installed, or the two differ: the file is then not kept.
    """
    refuse_without_onnx()
    import onnx

    module = _FromPixels(run).eval()
    unfinished = path.with_name(f".{path.name}")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's, of its age and of asserts in the net
            # The other exporter (dynamo=True) needs onnxscript, and makes the same of our nets.
            torch.onnx.export(
                module,
                (torch.from_numpy(images[:2]).to(run.device),),
                str(unfinished),
                input_names=["images"],
                output_names=["logits"],
                dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        model = onnx.load(str(unfinished))
        _without_bool_eye(model)
        _add_metadata(model, run)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(unfinished))
        told = _compared(module, unfinished, images, device=run.device)
        if told["largest_difference"] > TOLERANCE * max(1.0, told["largest_logit"]):
            raise UserError(
                f"the ONNX file differs from torch by {told['largest_difference']:.2g} in a logit; it is not kept."
            )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return {"file": path.name, "opset": OPSET, "bytes": path.stat().st_size, **told}


def refuse_without_onnx() -> None:
    """Raise UserError where a package is missing."""
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"export=onnx needs {' and '.join(missing)}: pip install 'vitexp[export]' brings them.")


def _without_bool_eye(model: Any) -> None:
    """The diagonal that lsa leaves out: onnxruntime makes one of numbers only, not of truth values.

    The exporter makes it from zeros of that kind, and turns it into truth values afterwards in any case.
    """
    from onnx import TensorProto, helper

    zeros = {node.input[0] for node in model.graph.node if node.op_type == "EyeLike"}
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape" and node.output[0] in zeros:
            del node.attribute[:]
            value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
            node.attribute.append(helper.make_attribute("value", value))


def _add_metadata(model: Any, run: FinishedRun) -> None:
    from omegaconf import OmegaConf

    facts = {
        "classes": run.classes,
        "prepare": OmegaConf.to_container(run.config.data.prepare, resolve=True),
        "model": run.config.model.name,
    }
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value, ensure_ascii=False)


def _compared(module: nn.Module, path: Path, images: NDArray[np.uint8], *, device: torch.device) -> dict[str, Any]:
    """In float32 both, in batches of two sizes, for a file that knows only one would pass otherwise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class but this
        raise UserError(f"onnxruntime cannot run this net: {one_line(str(error))}") from error
    parts = [part for part in (images[:1], images[1:]) if len(part)]
    theirs = np.concatenate([session.run(["logits"], {"images": part})[0] for part in parts])
    with torch.inference_mode():
        ours = module(torch.from_numpy(images).to(device)).cpu().numpy()
    return {
        "images_compared": len(images),
        "largest_difference": float(np.abs(ours - theirs).max()),
        "largest_logit": float(np.abs(ours).max()),
        "same_predictions": int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
    }


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
    return {"folder": folder.name, **_compared_with_timm(run, folder, images)}


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


def _compared_with_timm(run: FinishedRun, folder: Path, images: NDArray[np.uint8]) -> dict[str, Any]:
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
