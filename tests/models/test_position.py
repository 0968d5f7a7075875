from __future__ import annotations

import math

import pytest
import torch

from vitexp.models import interpolate_position_embedding, sincos_position_embedding


def test_sincos_has_the_known_values() -> None:
    """Chen et al. 2021 (MoCo v3): quarters sin(x w), cos(x w), sin(y w), cos(y w), with w = 10000^(-i / (dim / 4))."""
    embedding = sincos_position_embedding(grid=3, dim=8)
    assert embedding.shape == (1, 9, 8)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding[0, 0], torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1]))
    column, row = 2, 1
    x = [math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100)]
    y = [math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)]
    torch.testing.assert_close(embedding[0, row * 3 + column], torch.tensor(x + y))


def test_sincos_is_zero_for_prefix_tokens() -> None:
    embedding = sincos_position_embedding(grid=2, dim=4, prefix_tokens=2)
    assert embedding.shape == (1, 6, 4)
    assert embedding[:, :2].abs().max() == 0
    torch.testing.assert_close(embedding[:, 2:], sincos_position_embedding(grid=2, dim=4))


def test_interpolation_to_the_same_grid_is_the_identity() -> None:
    embedding = torch.randn(1, 1 + 16, 8)
    same = interpolate_position_embedding(embedding, old_grid=4, new_grid=4, prefix_tokens=1)
    torch.testing.assert_close(same, embedding, rtol=0, atol=0)


@pytest.mark.parametrize("new_grid", [2, 8])
def test_interpolation_keeps_prefix_orientation_and_constants(new_grid: int) -> None:
    prefix = torch.randn(1, 2, 3)
    rows = torch.arange(4.0).repeat_interleave(4)
    columns = torch.arange(4.0).repeat(4)
    patches = torch.stack([torch.full((16,), 7.0), rows, columns], dim=-1)[None]
    out = interpolate_position_embedding(
        torch.cat([prefix, patches], dim=1), old_grid=4, new_grid=new_grid, prefix_tokens=2
    )
    assert out.shape == (1, 2 + new_grid**2, 3)
    torch.testing.assert_close(out[:, :2], prefix, rtol=0, atol=0)
    constant, row, column = out[0, 2:].unflatten(0, (new_grid, new_grid)).unbind(-1)
    torch.testing.assert_close(constant, torch.full((new_grid, new_grid), 7.0))
    assert (row.diff(dim=0) > 0).all() and row.diff(dim=1).abs().max() < 1e-5
    torch.testing.assert_close(column, row.T)


def test_interpolation_refuses_a_wrong_grid() -> None:
    with pytest.raises(ValueError, match="There are 17 position embeddings; a 4x4 grid with 0 prefix tokens has 16"):
        interpolate_position_embedding(torch.zeros(1, 17, 8), old_grid=4, new_grid=8, prefix_tokens=0)
