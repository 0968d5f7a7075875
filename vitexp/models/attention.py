"""Multi-head self-attention (Vaswani et al. 2017), with the locality variant of Lee et al. 2021."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitexp.errors import indivisible

NORM_EPS = 1e-6  # for every LayerNorm in the ViT, as in Dosovitskiy et al. 2021; torch's default is 1e-5


def is_fused_slow(values: Tensor) -> bool:
    """Return whether the fused attention kernel is slower than explicit products for `values` (any shape).

    In bfloat16 on a CPU its backward pass takes several times as long.
    """
    return values.device.type == "cpu" and values.dtype == torch.bfloat16


class Attention(nn.Module):
    """Softmax attention of every token to every token.

    `qk_norm` normalizes queries and keys over the channels of a head (Dehghani et al. 2023, section 2.1). `lsa` is the
    locality self-attention of Lee et al. 2021 (section 3.2): a learned temperature, here one per head, and no token
    attends to itself. `attention_dropout` acts on the attention weights, `dropout` on the output.

    Raises ValueError unless num_heads divides dim.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        qk_norm: bool = False,
        lsa: bool = False,
    ) -> None:
        super().__init__()
        if misfit := indivisible("num_heads", num_heads, "dim", dim):
            raise ValueError(misfit)
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(self.head_dim, eps=NORM_EPS) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim, eps=NORM_EPS) if qk_norm else nn.Identity()
        self.lsa = lsa
        # The inverse of the temperature; the learned one starts at the usual 1 / sqrt(head_dim).
        self.scale = nn.Parameter(torch.full((num_heads, 1, 1), self.head_dim**-0.5)) if lsa else self.head_dim**-0.5
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, read: int | None = None) -> Tensor:
        """Map (B, T, dim) to (B, T, dim), or to (B, read, dim): only the first `read` tokens, which attend to all."""
        q, k, v = self._heads(x) if read is None else self._heads_read(x, read)
        if self.lsa or is_fused_slow(v):
            return self._merge(self._explicit(q, k, v)[0])
        dropout = self.attention_dropout if self.training else 0.0
        return self._merge(F.scaled_dot_product_attention(q, k, v, dropout_p=dropout))

    def forward_with_weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output (B, T, dim) and the weights (B, num_heads, T, T), after softmax and before dropout.

        The output depends on the weights in the autograd graph.
        """
        heads, weights = self._explicit(*self._heads(x))
        return self._merge(heads), weights

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (B, num_heads, T, head_dim), of tokens (B, T, dim)."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.q_norm(q), self.k_norm(k), v

    def _heads_read(self, x: Tensor, read: int) -> tuple[Tensor, Tensor, Tensor]:
        """Do the same with queries of the first `read` tokens only: (B, num_heads, read, head_dim)."""
        (batch, tokens, dim), weight, bias = x.shape, self.qkv.weight, self.qkv.bias
        q = F.linear(x[:, :read], weight[:dim], bias[:dim]).view(batch, read, self.num_heads, self.head_dim)
        kv = F.linear(x, weight[dim:], bias[dim:]).view(batch, tokens, 2, self.num_heads, self.head_dim)
        q, (k, v) = q.transpose(1, 2), kv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.q_norm(q), self.k_norm(k), v

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output (B, num_heads, Q, head_dim) for Q queries and the weights (B, num_heads, Q, T)."""
        scores = (q * self.scale) @ k.transpose(-2, -1)  # (B, num_heads, Q, T)
        if self.lsa:
            itself = torch.eye(*scores.shape[-2:], dtype=torch.bool, device=scores.device)
            scores = scores.masked_fill(itself, float("-inf"))
        weights = scores.softmax(dim=-1)  # the kernels sum in float32, whatever the dtype
        return F.dropout(weights, self.attention_dropout, self.training) @ v, weights

    def _merge(self, heads: Tensor) -> Tensor:
        """Merge and project the heads: (B, num_heads, T, head_dim) -> (B, T, dim)."""
        return self.proj_drop(self.proj(heads.transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]
