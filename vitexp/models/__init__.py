"""The models: pure torch modules that know no configuration, no training loop and no files.

Every model is built with keywords, among them `num_classes` and `image_size` (pixels a side), and maps images
(B, C, H, W), float, to logits (B, num_classes).
"""

from __future__ import annotations

from vitexp.models.attention import Attention
from vitexp.models.cnn import SimpleCNN, resnet18
from vitexp.models.mae import MaskedAutoencoder
from vitexp.models.position import interpolate_position_embedding, sincos_position_embedding
from vitexp.models.vit import ViT

__all__ = [
    "Attention",
    "MaskedAutoencoder",
    "SimpleCNN",
    "ViT",
    "interpolate_position_embedding",
    "resnet18",
    "sincos_position_embedding",
]
