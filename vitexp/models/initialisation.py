"""How the weights of a ViT start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitexp.models.attention import Attention


def initialise_layer(module: nn.Module) -> None:
    """The usual start of a ViT's layer, in place, by its kind; for `nn.Module.apply`.

    Linear layers: normal with standard deviation 0.02, zero bias, as in DeiT and timm.
    The patch projection (a convolution with bias): LeCun normal, zero bias, so that tokens start with the variance
    of the pixels whatever the patch size (as in big_vision). The convolutions of the CCT stem have no bias and feed
    a ReLU: He normal (Hassani et al. 2021).
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d) and module.bias is not None:
        fan_in = module.weight[0].numel()
        nn.init.trunc_normal_(module.weight, std=1.0 / math.sqrt(fan_in))
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)


@torch.no_grad()
def initialise_mimetic(attention: Attention) -> None:
    """Mimetic initialisation of an attention layer, in place (Trockman & Kolter 2023).

    With Z normal of variance 1/dim: each head's product of query and key weights is the best approximation of rank
    head_dim to 0.7 Z + 0.7 I, and the product of value and projection weights is 0.4 Z - 0.4 I. These are the
    factors that the paper uses for vision. Biases stay as they are.
    """
    dim, heads, head_dim = attention.proj.in_features, attention.num_heads, attention.head_dim
    q, k, v = attention.qkv.weight.view(3, dim, dim)
    for head in range(heads):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        # A score is x_i^T Wq^T Wk x_j with Wq and Wk (head_dim, dim): factor their product.
        left, right = _factor(_noisy_identity(q, noise=0.7, identity=0.7), rank=head_dim)
        q[rows] = left.T
        k[rows] = right
    left, right = _factor(_noisy_identity(v, noise=0.4, identity=-0.4), rank=dim)
    attention.proj.weight.copy_(left)
    v.copy_(right)


def _noisy_identity(like: Tensor, *, noise: float, identity: float) -> Tensor:
    """noise * Z + identity * I, with Z (dim, dim) normal of variance 1 / dim."""
    dim = like.shape[0]
    eye = torch.eye(dim, dtype=like.dtype, device=like.device)
    return torch.randn_like(like) * (noise / math.sqrt(dim)) + identity * eye


def _factor(matrix: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    """`matrix` (dim, dim) as (dim, rank) @ (rank, dim), by its largest singular values shared equally."""
    u, s, vh = torch.linalg.svd(matrix)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vh[:rank]
