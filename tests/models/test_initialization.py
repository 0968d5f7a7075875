from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vitexp.models import Attention, ViT, sincos_position_embedding
from vitexp.models.initialization import initialize_mimetic


def test_default_weights_have_their_standard_deviations() -> None:
    torch.manual_seed(0)
    model = ViT(image_size=32, num_classes=10, dim=96, depth=2, num_heads=3, registers=4)
    assert model.blocks[1].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.blocks[1].mlp.fc2.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.pos_embed is not None and model.cls_token is not None
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.3)
    assert model.patch_embed.proj.weight.std().item() == pytest.approx(1 / math.sqrt(48), rel=0.03)
    biases = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
    assert all(bias.abs().max() == 0 for bias in biases)


def diagonal_and_noise(product: Tensor) -> tuple[float, float]:
    """Return the mean of the diagonal and the standard deviation of the rest, in units of 1 / sqrt(dim)."""
    dim = product.shape[0]
    rest = product[~torch.eye(dim, dtype=torch.bool)]
    return product.diagonal().mean().item(), rest.std().item() * math.sqrt(dim)


def test_mimetic_products_are_noisy_identities() -> None:
    """Trockman & Kolter 2023: Wq^T Wk = 0.7 Z + 0.7 I at full rank, Wproj Wv = 0.4 Z - 0.4 I."""
    torch.manual_seed(0)
    attention = Attention(dim=96, num_heads=1)
    initialize_mimetic(attention)
    q, k, v = attention.qkv.weight.detach().chunk(3)
    assert diagonal_and_noise(q.T @ k) == pytest.approx((0.7, 0.7), abs=0.05)
    assert diagonal_and_noise(attention.proj.weight.detach() @ v) == pytest.approx((-0.4, 0.4), abs=0.05)


def test_mimetic_heads_differ_and_have_low_rank() -> None:
    torch.manual_seed(0)
    attention = Attention(dim=96, num_heads=4)
    initialize_mimetic(attention)
    q, k, v = attention.qkv.weight.detach().chunk(3)
    products = [q[rows].T @ k[rows] for rows in torch.arange(96).chunk(4)]
    for product in products:
        assert torch.linalg.matrix_rank(product, rtol=1e-4).item() == 24
        diagonal, noise = diagonal_and_noise(product)
        assert diagonal > 0.2
        assert noise < 0.7
    assert (products[0] - products[1]).norm() > 1.0
    assert diagonal_and_noise(attention.proj.weight.detach() @ v)[0] == pytest.approx(-0.4, abs=0.05)


def test_mimetic_learned_positions_start_as_sincos() -> None:
    model = ViT(image_size=8, num_classes=2, dim=12, depth=1, num_heads=1, init="mimetic")
    assert isinstance(model.pos_embed, torch.nn.Parameter)
    expected = sincos_position_embedding(grid=2, dim=12, prefix_tokens=1)
    torch.testing.assert_close(model.pos_embed.detach(), expected, rtol=0, atol=0)
