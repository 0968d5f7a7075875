"""Initial weights of a ViT."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitexp.models.attention import Attention


def initialize_layer(module: nn.Module) -> None:
    """Initialize a layer of a ViT in place, depending on its class; for `nn.Module.apply`.

    Linear layers: normal with standard deviation 0.02, zero bias, as in DeiT and timm.
    Convolutions with bias (the patch projection): LeCun normal, zero bias, so that tokens start with the variance of
    the pixels for every patch size, as in big_vision. Convolutions without bias, which precede a ReLU in the CCT stem:
    He normal (Hassani et al. 2021).
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d) and module.bias is not None:
        fan_in = module.weight[0].numel()
        nn.init.trunc_normal_(module.weight, std=1.0 / math.sqrt(fan_in))
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)


@torch.no_grad()
def initialize_mimetic(attention: Attention) -> None:
    """Initialize an attention layer in place, mimicking a pretrained one (Trockman & Kolter 2023).

    With Z normal of variance 1/dim: each head's product of query and key weights is the best approximation of rank
    head_dim to 0.7 Z + 0.7 I, and the product of value and projection weights is 0.4 Z - 0.4 I, the paper's factors
    for vision. Biases are not changed.
    """
    dim, heads, head_dim = attention.proj.in_features, attention.num_heads, attention.head_dim
    q, k, v = attention.qkv.weight.view(3, dim, dim)
    for head in range(heads):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        # The attention score is x_i^T Wq^T Wk x_j with Wq and Wk (head_dim, dim): factor their product.
        left, right = _factor(_noisy_identity(q, noise=0.7, identity=0.7), rank=head_dim)
        q[rows] = left.T
        k[rows] = right
    left, right = _factor(_noisy_identity(v, noise=0.4, identity=-0.4), rank=dim)
    attention.proj.weight.copy_(left)
    v.copy_(right)


def _noisy_identity(like: Tensor, *, noise: float, identity: float) -> Tensor:
    """Return noise * Z + identity * I, with Z (dim, dim) normal of variance 1 / dim."""
    dim = like.shape[0]
    eye = torch.eye(dim, dtype=like.dtype, device=like.device)
    return torch.randn_like(like) * (noise / math.sqrt(dim)) + identity * eye


def _factor(matrix: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    """Factor `matrix` (dim, dim) into (dim, rank) @ (rank, dim) that share its largest singular values equally."""
    u, s, vh = torch.linalg.svd(matrix)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vh[:rank]
