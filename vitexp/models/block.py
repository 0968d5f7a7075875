"""The encoder block of the Vision Transformer: pre-norm attention and MLP, each on a residual branch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitexp.models.attention import NORM_EPS, Attention


class Mlp(nn.Module):
    """Linear, GELU, linear: (B, T, dim) -> (B, T, dim). conv: applied to the hidden channels before GELU."""

    def __init__(self, *, dim: int, hidden_dim: int, dropout: float = 0.0, conv: TokenConv | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.conv = conv or nn.Identity()
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.conv(self.fc1(x))))))  # type: ignore[no-any-return]


class LayerScale(nn.Module):
    """A learned factor per channel on the residual branch (Touvron et al. 2021, CaiT, section 2)."""

    def __init__(self, *, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(initial)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): (B, T, dim) -> (B, T, dim).

    conv_prefix: number of tokens before the patches, which a convolution in the MLP skips; None: no convolution.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        qk_norm: bool = False,
        layer_scale: float | None = None,
        lsa: bool = False,
        conv_prefix: int | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(
            dim=dim,
            num_heads=num_heads,
            dropout=dropout,
            attention_dropout=attention_dropout,
            qk_norm=qk_norm,
            lsa=lsa,
        )
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim=dim, initial=layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        hidden_dim = int(dim * mlp_ratio)
        conv = None if conv_prefix is None else TokenConv(dim=hidden_dim, prefix_tokens=conv_prefix)
        self.mlp = Mlp(dim=dim, hidden_dim=hidden_dim, dropout=dropout, conv=conv)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim=dim, initial=layer_scale)
        self.drop_path = DropPath(rate=drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, *, read: int | None = None) -> Tensor:
        """Map (B, T, dim) to (B, T, dim), or (B, read, dim) of the first `read` tokens in a last block without conv."""
        x = x[:, :read] + self.drop_path(self.ls1(self.attn(self.norm1(x), read=read)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))  # type: ignore[no-any-return]

    def forward_with_weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output (B, T, dim) and its attention weights (B, num_heads, T, T)."""
        branch, weights = self.attn.forward_with_weights(self.norm1(x))
        x = x + self.drop_path(self.ls1(branch))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x)))), weights


class TokenConv(nn.Conv2d):
    """A 3x3 depthwise convolution over the patch tokens; the tokens before them (class token, registers) are unchanged.

    (B, T, dim) -> (B, T, dim); the last T - prefix_tokens are the patches of a square grid, row by row. It mixes
    neighbors between the linear layers of the MLP (LocalViT, Li et al. 2021; CeiT, Yuan et al. 2021), without batch
    norm as in SegFormer's Mix-FFN (Xie et al. 2021).
    """

    def __init__(self, *, dim: int, prefix_tokens: int) -> None:
        super().__init__(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.prefix_tokens = prefix_tokens

    def forward(self, x: Tensor) -> Tensor:
        prefix, patches = x[:, : self.prefix_tokens], x[:, self.prefix_tokens :]
        side = math.isqrt(patches.shape[1])
        grid = patches.transpose(1, 2).view(-1, self.in_channels, side, side)  # (B, dim, side, side)
        # On a CPU, the gradient of the kernels takes ten times as long on a map of 1 or 2 patches per side as on 3.
        missing = max(3 - side, 0)
        grid = F.pad(grid, (0, missing, 0, missing)) if missing else grid
        # Channels last is the memory layout of the tokens, and three times as fast as planes on a CPU.
        grid = super().forward(grid.contiguous(memory_format=torch.channels_last))[:, :, :side, :side]
        patches = grid.flatten(2).transpose(1, 2)
        return torch.cat([prefix, patches], dim=1) if self.prefix_tokens else patches


class DropPath(nn.Module):
    """Stochastic depth: in training, zero the branch of an image with probability `rate`, else divide it by 1 - rate.

    Raises ValueError for a rate outside [0, 1).
    """

    def __init__(self, *, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop_path={rate} must be at least 0 and below 1.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop branches at random: (B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty(x.shape[0], *(1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


def drop_path_rates(*, maximum: float, depth: int) -> list[float]:
    """Return the rates of `depth` blocks: linear from 0 to `maximum` (Huang et al. 2016, section 3)."""
    return [maximum * block / max(depth - 1, 1) for block in range(depth)]
