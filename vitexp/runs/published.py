"""Weights to download, and the normalization of the images that they were trained on. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitexp.errors import ConfigError

Normalization = tuple[Sequence[float], Sequence[float]]

# Mean and standard deviation of values in [0, 1], by data.normalize.
NORMALIZATIONS: Mapping[str, Normalization] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file to download. sha256: its first digits, as many as are published."""

    url: str
    sha256: str
    normalize: str
    num_heads: int


# By dim, depth and patch_size. Both publishers include the first eight digits of the SHA-256 in the file name.
PUBLISHED: Mapping[str, Mapping[tuple[int, int, int], Published]] = {
    # torchvision's, trained from scratch on ImageNet-1k: 81.07% there for vit_b16.
    "imagenet1k": {
        (dim, depth, patch_size): Published(
            url=f"https://download.pytorch.org/models/{name}-{digits}.pth",
            sha256=digits,
            normalize="imagenet",
            num_heads=dim // 64,
        )
        for dim, depth, patch_size, name, digits in (
            (768, 12, 16, "vit_b_16", "c867db91"),
            (768, 12, 32, "vit_b_32", "d86f8d99"),
            (1024, 24, 16, "vit_l_16", "852ce7e3"),
            (1024, 24, 32, "vit_l_32", "c7638314"),
        )
    },
    # Google's, from Dosovitskiy et al. 2021, trained on ImageNet-21k and converted by timm.
    "imagenet21k": {
        (768, 12, 16): Published(
            url="https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-vitjx/"
            "jx_vit_base_patch16_224_in21k-e5005f0a.pth",
            sha256="e5005f0a",
            normalize="half",
            num_heads=12,
        )
    },
}


def published_for(name: str, model: Mapping[str, Any]) -> Published:
    """Return the weights that fit a model. name: a key of PUBLISHED. Raises ConfigError if there are none."""
    wanted: Any = tuple(model.get(key) for key in ("dim", "depth", "patch_size"))
    if found := PUBLISHED[name].get(wanted):
        return found
    sizes = "; ".join(
        f"model.dim={dim} model.depth={depth} model.patch_size={patch_size}"
        for dim, depth, patch_size in PUBLISHED[name]
    )
    raise ConfigError(
        f"model.weights={name} is published for {sizes} (model=vit_b16 is the first), not for this model."
    )
