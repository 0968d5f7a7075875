"""The same Vision Transformer as others wrote it: timm, and vit-pytorch (two variants)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from omegaconf import DictConfig
from torch import nn

from vitexp.errors import ConfigError


def peer_nets(config: DictConfig, *, num_classes: int) -> dict[str, nn.Module]:
    """Nets of the sizes of config.model, float [B, 3, S, S] to logits, by name.

    SimpleViT has no class token and fixed positions, and no dropout; the others are what config.model is with its plain
    options. Raises ConfigError where a package is missing or config.model is no ViT.
    """
    model, image_size = config.model, config.data.image_size
    if model.get("_target_") != "vitexp.models.ViT":
        raise ConfigError(f"peers=true compares Vision Transformers, and model={model.name} is none; leave peers away.")
    timm, vit_pytorch = _package("timm"), _package("vit_pytorch")
    sizes = {"image_size": image_size, "patch_size": model.patch_size, "num_classes": num_classes}
    sizes |= {"dim": model.dim, "depth": model.depth, "heads": model.num_heads}
    sizes |= {"dim_head": model.dim // model.num_heads, "mlp_dim": int(model.dim * model.mlp_ratio)}
    return {
        "timm VisionTransformer": timm.models.VisionTransformer(
            img_size=image_size,
            patch_size=model.patch_size,
            num_classes=num_classes,
            embed_dim=model.dim,
            depth=model.depth,
            num_heads=model.num_heads,
            mlp_ratio=model.mlp_ratio,
        ),
        "vit-pytorch ViT": vit_pytorch.ViT(**sizes),
        "vit-pytorch SimpleViT": vit_pytorch.SimpleViT(**sizes),
    }


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"peers=true needs {name}: pip install timm vit-pytorch.") from error
