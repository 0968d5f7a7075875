from __future__ import annotations

import numpy as np
import pytest
import torch

from vitexp.explain.methods.attention import cls_attention

# One image, two heads, one prefix token and a grid of 2 x 2: five tokens. Row = query, every row sums to 1.
HEAD_A = torch.tensor(
    [
        [0.2, 0.1, 0.4, 0.1, 0.2],
        [0.6, 0.4, 0.0, 0.0, 0.0],
        [0.0, 0.8, 0.2, 0.0, 0.0],
        [0.0, 0.0, 0.0, 1.0, 0.0],
        [0.2, 0.2, 0.2, 0.2, 0.2],
    ]
)
HEAD_B = torch.tensor(
    [
        [0.4, 0.3, 0.0, 0.1, 0.2],
        [0.0, 0.0, 0.0, 0.0, 1.0],
        [0.2, 0.0, 0.0, 0.8, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0],
        [0.2, 0.2, 0.2, 0.2, 0.2],
    ]
)
WEIGHTS = torch.stack([HEAD_A, HEAD_B])[None]


def test_class_token_row_averaged_over_heads() -> None:
    maps = cls_attention([WEIGHTS], prefix_tokens=1, has_cls=True, grid_size=2)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, [[[0.2, 0.2], [0.1, 0.2]]], atol=1e-6)


def test_without_class_token_the_patches_are_averaged() -> None:
    # A register is skipped as a query and as a key: the columns 1..4 over the rows 1..4, both heads.
    maps = cls_attention([WEIGHTS], prefix_tokens=1, has_cls=False, grid_size=2)
    np.testing.assert_allclose(maps, [[[1.6 / 8, 0.6 / 8], [2.2 / 8, 2.4 / 8]]], atol=1e-6)


def test_mean_pooling_without_prefix() -> None:
    uniform = torch.full((3, 2, 9, 9), 1 / 9)
    maps = cls_attention([uniform], prefix_tokens=0, has_cls=False, grid_size=3)
    np.testing.assert_allclose(maps, np.full((3, 3, 3), 1 / 9), rtol=1e-6)


def test_registers_behind_the_class_token_are_no_patches() -> None:
    attention = torch.zeros(1, 1, 6, 6)
    attention[0, 0, 0] = torch.tensor([0.1, 0.5, 0.05, 0.15, 0.0, 0.2])
    maps = cls_attention([attention], prefix_tokens=2, has_cls=True, grid_size=2)
    np.testing.assert_allclose(maps, [[[0.05, 0.15], [0.0, 0.2]]], atol=1e-6)


def test_layer_is_chosen_and_the_last_is_the_default() -> None:
    layers = [WEIGHTS, torch.full_like(WEIGHTS, 0.2)]
    arguments = {"prefix_tokens": 1, "has_cls": True, "grid_size": 2}
    np.testing.assert_allclose(cls_attention(layers, **arguments), np.full((1, 2, 2), 0.2), rtol=1e-6)
    np.testing.assert_allclose(cls_attention(layers, **arguments, layer=0)[0, 0, 0], 0.2, rtol=1e-6)
    np.testing.assert_allclose(cls_attention(layers, **arguments, layer=0)[0, 1, 0], 0.1, rtol=1e-6)
    with pytest.raises(IndexError):
        cls_attention(layers, **arguments, layer=2)


def test_reduced_precision_and_gradients_are_taken() -> None:
    weights = WEIGHTS.to(torch.bfloat16).requires_grad_()
    maps = cls_attention([weights], prefix_tokens=1, has_cls=True, grid_size=2)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps[0, 0, 1], 0.2, atol=2e-3)


def test_wrong_grid_is_named() -> None:
    with pytest.raises(ValueError, match=r"5 tokens.*make 10"):
        cls_attention([WEIGHTS], prefix_tokens=1, has_cls=True, grid_size=3)


def test_class_token_needs_a_prefix() -> None:
    with pytest.raises(ValueError, match="prefix_tokens is 0"):
        cls_attention([torch.full((1, 1, 4, 4), 0.25)], prefix_tokens=0, has_cls=True, grid_size=2)
