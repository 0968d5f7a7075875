"""A net that enlarges its images equals a net for large images on enlarged ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vitexp.models import ViT
from vitexp.system.hardware import flops_per_image

SIZES = {"num_classes": 3, "patch_size": 8, "dim": 16, "depth": 2, "num_heads": 2}


def test_it_computes_what_the_net_for_large_images_does() -> None:
    small, large = ViT(image_size=16, upsample=48, **SIZES).eval(), ViT(image_size=48, **SIZES).eval()
    large.load_state_dict(small.state_dict())
    images = torch.randn(2, 3, 16, 16)
    enlarged = F.interpolate(images, size=(48, 48), mode="bicubic", align_corners=False)
    torch.testing.assert_close(small(images), large(enlarged), rtol=0, atol=1e-6)
    torch.testing.assert_close(small.forward_features(images), large.forward_features(enlarged), rtol=0, atol=1e-6)
    logits, weights = small.forward_with_attention(images)
    torch.testing.assert_close(logits, large(enlarged), rtol=0, atol=1e-6)
    assert small.grid_size == 6
    assert weights[0].shape[-1] == 37
    assert flops_per_image(small, 16) == flops_per_image(large, 48)


def test_without_it_images_are_unchanged() -> None:
    images = torch.randn(2, 3, 16, 16)
    assert ViT(image_size=16, **SIZES).enlarged(images) is images


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="upsample=8 is smaller than image_size=16"):
        ViT(image_size=16, upsample=8, **SIZES)
    with pytest.raises(ValueError, match="patch_size=8 does not divide upsample=20"):
        ViT(image_size=16, upsample=20, **SIZES)
    ViT(image_size=15, upsample=16, **SIZES)  # the patch size must divide the enlarged side
