"""The models: pure torch modules without configuration, training loop or files.

Every model has keyword-only arguments, among them `num_classes` and `image_size` (pixels per side), and maps float
images (B, C, H, W) to logits (B, num_classes). Its class attributes state what it can do; they are read without
importing the class, and a subclass inherits them:

    has_blocks: parameters named blocks.<i>., for layer-wise learning rates and optim=muon
    has_attention: forward_with_attention, for attention maps
    has_patches: a grid of patches with position embeddings, for their figure and masked autoencoding
    has_batch_norm: batch norm layers
    accepts_weights: can start from model.weights, whose tensors have the names of a network of its `family`
    has_published_weights: has a method load_published, for model.pretrained
    any_image_size: works with image sizes other than `image_size`, for training.image_sizes

Networks are imported when they are first used: the modules without torch here are read before torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitexp.models.attention import Attention
    from vitexp.models.cnn import SimpleCNN
    from vitexp.models.mae import MaskedAutoencoder
    from vitexp.models.position import interpolate_position_embedding, sincos_position_embedding
    from vitexp.models.pvt import PyramidVisionTransformer
    from vitexp.models.swin import SwinTransformer
    from vitexp.models.timm_model import TimmModel
    from vitexp.models.vit import ViT

__all__ = [
    "Attention",
    "MaskedAutoencoder",
    "PyramidVisionTransformer",
    "SimpleCNN",
    "SwinTransformer",
    "TimmModel",
    "ViT",
    "interpolate_position_embedding",
    "sincos_position_embedding",
]
_MODULES = {
    "Attention": "attention",
    "MaskedAutoencoder": "mae",
    "PyramidVisionTransformer": "pvt",
    "SimpleCNN": "cnn",
    "SwinTransformer": "swin",
    "TimmModel": "timm_model",
    "ViT": "vit",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(f"vitexp.models.{_MODULES.get(name, 'position')}"), name)
    raise AttributeError(f"module 'vitexp.models' has no attribute {name!r}")
