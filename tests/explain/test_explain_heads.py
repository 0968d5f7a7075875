from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from vitexp.explain.methods.heads import (
    attention_entropy,
    even_attention_distance,
    head_distance,
    mean_attention_distance,
)

# Four tokens, two heads: in one, every token attends to itself; in the other, to all tokens equally.
ITSELF, ALL = torch.eye(4), torch.full((4, 4), 0.25)
LAYER = torch.stack([ITSELF, ALL])[None]


def test_entropy_in_bits() -> None:
    entropy = attention_entropy([LAYER, LAYER.flip(1)])
    assert entropy.dtype == np.float32
    np.testing.assert_allclose(entropy, [[0, 2], [2, 0]], atol=1e-6)


def test_distance_in_pixels_by_hand() -> None:
    # Equal attention on a 2 x 2 grid of 8-pixel patches: itself at 0, two at 8, one at 8 sqrt 2.
    distance = mean_attention_distance([LAYER], prefix_tokens=0, grid_size=2, patch_size=8)
    assert distance.dtype == np.float32
    np.testing.assert_allclose(distance, [[0, (8 + 8 + 8 * 2**0.5) / 4]], rtol=1e-6, atol=1e-6)


def test_distance_of_attention_that_prefers_nothing() -> None:
    ours = mean_attention_distance([LAYER], prefix_tokens=0, grid_size=2, patch_size=8)
    assert even_attention_distance(grid_size=2, patch_size=8) == pytest.approx(ours[0, 1])
    assert even_attention_distance(grid_size=1, patch_size=8) == 0


def test_distance_leaves_the_prefix_out() -> None:
    # Every patch gives half of its attention to the class token, and the rest to itself or to all equally.
    with_cls = torch.full((1, 2, 5, 5), 0.5)
    with_cls[:, :, 1:, 1:] = LAYER / 2
    ours = mean_attention_distance([with_cls], prefix_tokens=1, grid_size=2, patch_size=8)
    np.testing.assert_allclose(
        ours, mean_attention_distance([LAYER], prefix_tokens=0, grid_size=2, patch_size=8), rtol=1e-6
    )


def test_distance_of_tokens_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"4 tokens.*make 5"):
        mean_attention_distance([LAYER], prefix_tokens=1, grid_size=2, patch_size=8)


def test_heads_apart_against_scipy() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(3, 2, 6, 6).softmax(dim=-1) for _ in range(2)]
    apart = head_distance(weights)
    assert apart.shape == (4, 4) and apart.dtype == np.float32
    np.testing.assert_allclose(apart, apart.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(apart), 0, atol=1e-6)
    first, last = weights[0][:, 1].numpy(), weights[1][:, 0].numpy()  # heads 1 and 2 of 0 to 3
    expected = (jensenshannon(first, last, axis=-1, base=2) ** 2).mean()
    np.testing.assert_allclose(apart[1, 2], expected, rtol=1e-5)


def test_heads_that_share_nothing_are_one_apart() -> None:
    apart = head_distance([torch.stack([ITSELF, ITSELF.roll(1, dims=1)])[None]])
    np.testing.assert_allclose(apart, [[0, 1], [1, 0]], atol=1e-6)
