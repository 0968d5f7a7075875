"""Convert published weights of ViTs to the names and layouts of ViT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
Publisher = Literal["torchvision", "google", "timm"]

_TORCHVISION = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),  # by number today, by name in files of the first version
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.pre_logits\.", "head.0."),
    (r"^heads\.head\.", "head."),
)
_GOOGLE = (
    (r"^cls$", "cls_token"),
    (r"^embedding/", "patch_embed.proj."),
    (r"^Transformer/posembed_input/pos_embedding$", "pos_embed"),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"\.LayerNorm_0/", ".norm1."),
    (r"\.LayerNorm_2/", ".norm2."),
    (r"\.MultiHeadDotProductAttention_1/out/", ".attn.proj."),
    (r"\.MultiHeadDotProductAttention_1/", ".attn."),
    (r"\.MlpBlock_3/Dense_0/", ".mlp.fc1."),
    (r"\.MlpBlock_3/Dense_1/", ".mlp.fc2."),
    (r"^Transformer/encoder_norm/", "norm."),
    (r"^pre_logits/", "head.0."),
    (r"/(?=bias$|kernel$)", "."),
    (r"\.(kernel|scale)$", ".weight"),
)
_TIMM = ((r"^pre_logits\.fc\.", "head.0."),)  # before timm 0.8


def publisher_of(tensors: Tensors) -> Publisher | None:
    """Return whose names these are: torchvision's, Google's (vision_transformer) or timm's, which are also ours."""
    if "conv_proj.weight" in tensors:
        return "torchvision"
    if "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel" in tensors:
        return "google"
    return "timm" if "blocks.0.norm1.weight" in tensors else None


def in_our_names(tensors: Tensors, publisher: Publisher) -> dict[str, Tensor]:
    """Return the tensors with the names and layouts of ViT; unknown names are kept.

    After a hidden layer (pre_logits) the classifier is "head.2", as with head="mlp".
    """
    made = dict(_renamed(tensors, {"torchvision": _TORCHVISION, "google": _GOOGLE, "timm": _TIMM}[publisher]))
    if publisher == "google":
        made = dict(_as_torch_lays_out(made))
    if "head.0.weight" in made and "head.2.weight" not in made:
        made = dict(_renamed(made, ((r"^head\.(weight|bias)$", r"head.2.\1"),)))
    return made


def heads_of(tensors: Tensors) -> int | None:
    """Return the number of attention heads if the shapes show it, as in Google's arrays."""
    query = tensors.get("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel")
    return None if query is None else query.shape[1]


def _renamed(tensors: Tensors, rules: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        for old, new in rules:
            name = re.sub(old, new, name)
        yield name, tensor


def _as_torch_lays_out(tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    """Convert Flax layouts, (height, width, in, out) or (in, out), perhaps with heads, to torch's (out, in, ...)."""
    for name, tensor in tensors.items():
        if ".attn.query." in name:  # (in, heads, head_dim); the bias has no `in`
            parts = [tensors[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            joined = torch.cat([part.flatten(-2) for part in parts], dim=-1)
            yield name.replace(".query.", ".qkv."), joined.T if joined.ndim == 2 else joined
        elif ".attn.key." in name or ".attn.value." in name:
            continue  # joined with the query
        elif name.endswith(".attn.proj.weight"):  # (heads, head_dim, out)
            yield name, tensor.flatten(0, 1).T
        elif name.endswith(".weight") and tensor.ndim == 4:
            yield name, tensor.permute(3, 2, 0, 1)
        else:
            yield name, tensor.T if name.endswith(".weight") and tensor.ndim == 2 else tensor
