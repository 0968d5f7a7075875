from __future__ import annotations

import numpy as np
import pytest
import torch

from vitexp.explain.methods.patches import filter_components, image_patches, shifted_filters
from vitexp.models.stems import PatchStem, ShiftedStem


def test_patches_lie_where_they_were() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    patches = image_patches(images, patch_size=4)
    assert patches.shape == (2, 2, 3, 4, 4, 3) and patches.dtype == np.uint8
    np.testing.assert_array_equal(patches[1, 1, 2], images[1, 4:, 8:])


def test_patches_are_those_of_the_net() -> None:
    stem = PatchStem(in_channels=3, patch_size=4, dim=5)
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    tokens = stem(torch.from_numpy(image).permute(0, 3, 1, 2).float())
    patch = torch.from_numpy(image_patches(image, patch_size=4)[0, 1, 0]).permute(2, 0, 1).float()
    torch.testing.assert_close(tokens[0, 2], stem.proj(patch[None]).flatten())


def test_patches_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="patch_size=3"):
        image_patches(np.zeros((1, 8, 8, 3), np.uint8), patch_size=3)


@pytest.mark.parametrize("patch", [4, 5])
def test_shifted_filters_are_what_the_stem_computes(patch: int) -> None:
    torch.manual_seed(0)
    stem = ShiftedStem(in_channels=3, patch_size=patch, dim=7)
    torch.nn.init.normal_(stem.norm.weight)
    image = torch.randn(1, 3, 3 * patch, 3 * patch)
    window = shifted_filters(stem.proj.weight, stem.norm.weight, patch_size=patch)
    beyond = (window.shape[-1] - patch) // 2
    seen = image[0, :, patch - beyond : 2 * patch + beyond, patch - beyond : 2 * patch + beyond]
    entering: list[torch.Tensor] = []
    stem.norm.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
    token = stem(image)[0, 4] - stem.proj.bias
    deviation = (entering[0][0, 4].var(correction=0) + stem.norm.eps).sqrt()
    torch.testing.assert_close((window * seen).sum(dim=(1, 2, 3)), token * deviation, rtol=1e-4, atol=1e-4)


def test_components_of_known_filters() -> None:
    # Filters that differ along one picture strongly, and along another weakly.
    torch.manual_seed(0)
    strong, weak = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
    strong[0, 0, 1], weak[2, 1, 0] = 1.0, 1.0
    filters = torch.randn(200, 1, 1, 1) * 3 * strong + torch.randn(200, 1, 1, 1) * weak + 7.0
    pictures, shares = filter_components(filters, components=2)
    assert pictures.shape == (2, 2, 2, 3) and pictures.dtype == shares.dtype == np.float32
    assert abs(pictures[0, 0, 1, 0]) > 0.99 and abs(pictures[1, 1, 0, 2]) > 0.99
    np.testing.assert_allclose(shares.sum(), 1.0, rtol=1e-5)
    assert 0.8 < shares[0] < 0.95


def test_no_more_components_than_there_are() -> None:
    pictures, shares = filter_components(torch.randn(64, 3, 3, 3), components=28)
    assert pictures.shape == (27, 3, 3, 3) and shares.shape == (27,)
    np.testing.assert_allclose(np.linalg.norm(pictures.reshape(27, -1), axis=1), 1.0, rtol=1e-5)
    assert (np.diff(shares) <= 0).all()
