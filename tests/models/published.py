"""A small ViT of timm's and one of torchvision's, and the same weights in Google's format."""

from __future__ import annotations

from typing import Any

import numpy as np
import timm.models.vision_transformer as timm_vit
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

SIZES: dict[str, Any] = {"image_size": 32, "patch_size": 8, "dim": 24, "depth": 2, "num_heads": 3}
CLASSES = 5
TIMMS_SIZES: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "num_classes": CLASSES,
}
# The same as a user would type it.
SMALL = ("model=vit_tiny", "model.dim=24", "model.depth=2", "model.num_heads=3", "model.patch_size=8")


def disturbed(net: nn.Module) -> nn.Module:
    """Return the net with weights that no initialization gives, so that a skipped one is noticed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return net.eval()


def of_timm(**options: Any) -> nn.Module:
    return disturbed(timm_vit.VisionTransformer(**TIMMS_SIZES, **options))


def of_torchvision(**options: Any) -> nn.Module:
    return disturbed(
        VisionTransformer(
            image_size=32,
            patch_size=8,
            num_layers=2,
            num_heads=3,
            hidden_dim=24,
            mlp_dim=96,
            num_classes=CLASSES,
            **options,
        )
    )


def as_google(state: dict[str, Tensor], *, heads: int = 3) -> dict[str, NDArray[np.float32]]:
    """Return timm's weights with the names and layout of google-research/vision_transformer."""
    made: dict[str, Tensor] = {
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    dim = state["cls_token"].shape[-1]
    for block in range(2):
        ours, theirs = f"blocks.{block}.", f"Transformer/encoderblock_{block}/"
        for norm, number in (("norm1", 0), ("norm2", 2)):
            made[f"{theirs}LayerNorm_{number}/scale"] = state[f"{ours}{norm}.weight"]
            made[f"{theirs}LayerNorm_{number}/bias"] = state[f"{ours}{norm}.bias"]
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        weights, biases = state[f"{ours}attn.qkv.weight"].chunk(3), state[f"{ours}attn.qkv.bias"].chunk(3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            made[f"{attention}{part}/kernel"] = weight.T.reshape(dim, heads, dim // heads)
            made[f"{attention}{part}/bias"] = bias.reshape(heads, dim // heads)
        made[f"{attention}out/kernel"] = state[f"{ours}attn.proj.weight"].T.reshape(heads, dim // heads, dim)
        made[f"{attention}out/bias"] = state[f"{ours}attn.proj.bias"]
        for layer, number in (("fc1", 0), ("fc2", 1)):
            made[f"{theirs}MlpBlock_3/Dense_{number}/kernel"] = state[f"{ours}mlp.{layer}.weight"].T
            made[f"{theirs}MlpBlock_3/Dense_{number}/bias"] = state[f"{ours}mlp.{layer}.bias"]
    return {name: np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in made.items()}
