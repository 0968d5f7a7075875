"""The names of the tensors in published weights, and ours. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import Any, Literal

from vitexp.models.architecture import family_of

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
_RULES = {"torchvision": _TORCHVISION, "google": _GOOGLE, "timm": _TIMM}


def publisher_of(tensors: Container[str]) -> Publisher | None:
    """Return whose names these are: torchvision's, Google's (vision_transformer) or timm's, which are also ours."""
    if "conv_proj.weight" in tensors:
        return "torchvision"
    if "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel" in tensors:
        return "google"
    return None if family_of(tensors) is None else "timm"


def renamed(values: Mapping[str, Any], publisher: Publisher) -> dict[str, Any]:
    """Return the tensors, or what is known of them, such as their shapes, by their names in ViT. Keeps unknown names.

    After a hidden layer (pre_logits) the classifier is "head.2", as with head="mlp".
    """
    made = dict(_renamed(values, _RULES[publisher]))
    if "head.0.weight" in made and "head.2.weight" not in made:
        made = dict(_renamed(made, ((r"^head\.(weight|bias)$", r"head.2.\1"),)))
    return made


def _renamed(tensors: Mapping[str, Any], rules: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, Any]]:
    for name, tensor in tensors.items():
        for old, new in rules:
            name = re.sub(old, new, name)
        yield name, tensor
