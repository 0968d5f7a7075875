"""Attention in shifted windows of a map (Liu et al. 2021, Swin Transformer)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitexp.errors import indivisible

_APART = -100.0  # added to a score between areas, as published; -inf would leave some patches nothing to attend to


class WindowAttention(nn.Module):
    """Softmax attention within windows of a map, with a learned bias per head and relative position.

    The map is one window where it is not larger, and is not shifted then. Otherwise the windows lie `shift` patches
    further down and to the right than without it; those that leave the map continue at the opposite border, but no
    patch attends across it.

    Raises ValueError unless num_heads divides dim.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        window_size: int,
        shift: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        lsa: bool = False,
    ) -> None:
        super().__init__()
        if misfit := indivisible("num_heads", num_heads, "dim", dim):
            raise ValueError(misfit)
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.window_size, self.shift = window_size, shift
        self.attention_dropout = attention_dropout
        # The inverse of the temperature; the learned one starts at the usual 1 / sqrt(head_dim).
        self.scale = nn.Parameter(torch.full((num_heads, 1, 1), self.head_dim**-0.5)) if lsa else None
        table = torch.empty((2 * window_size - 1) ** 2, num_heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, dim) to (B, h, w, dim)."""
        side, dim = x.shape[2:]  # not the batch size, which an export to ONNX would take for a constant
        window, across, shift = self._windows(side)
        q, k, v = self._queries_keys_values(x, window, across, shift)
        heads = self._attend(q, k, v, self._bias(window, across, shift))
        x = heads.view(-1, across, across, self.num_heads, window, window, self.head_dim).permute(0, 1, 4, 2, 5, 3, 6)
        x = x.reshape(-1, across * window, across * window, dim)
        x = self.proj(x[:, :side, :side])
        return self.proj_drop(x.roll((shift, shift), dims=(1, 2)) if shift else x)  # type: ignore[no-any-return]

    def received(self, x: Tensor) -> Tensor:
        """Return the sum of the attention that each position of (B, h, w, dim) receives: (B, heads, h, w)."""
        side = x.shape[2]
        window, across, shift = self._windows(side)
        q, k, _ = self._queries_keys_values(x, window, across, shift)
        weights = self._weights(q, k, self._bias(window, across, shift))
        is_query = padded(torch.ones_like(x[:1, ..., :1]), to_multiple_of=window)  # 0 for padding
        is_query = is_query.view(across, window, across, window).transpose(1, 2).reshape(across**2, 1, window**2)
        sums = is_query.repeat_interleave(self.num_heads, dim=0) @ weights.float()  # (B, windows * heads, 1, T)
        maps = sums.view(-1, across, across, self.num_heads, window, window).permute(0, 3, 1, 4, 2, 5)
        maps = maps.reshape(-1, self.num_heads, across * window, across * window)[..., :side, :side]
        return maps.roll((shift, shift), dims=(2, 3))

    def _windows(self, side: int) -> tuple[int, int, int]:
        """Return the side of a window, how many there are along a map of this side, and how far they are shifted."""
        window = min(self.window_size, side)
        return window, -(-side // window), self.shift if side > window else 0

    def _queries_keys_values(self, x: Tensor, window: int, across: int, shift: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of every window of (B, h, w, dim), each (B, windows * heads, T, head_dim)."""
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
        split = (-1, across, window, across, window, 3, self.num_heads, self.head_dim)
        qkv = self.qkv(padded(x, to_multiple_of=window)).view(split).permute(5, 0, 1, 3, 6, 2, 4, 7)  # a single copy
        q, k, v = qkv.reshape(3, -1, across**2 * self.num_heads, window**2, self.head_dim).unbind(0)
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Attend within windows: three times (B, W, T, head_dim) and (W, T, T) to (B, W, T, head_dim)."""
        dropout = self.attention_dropout if self.training else 0.0
        # On a CPU there is no fused kernel with a gradient for the bias.
        if q.device.type != "cpu":
            return F.scaled_dot_product_attention(self._scaled(q), k, v, attn_mask=bias.to(q.dtype), dropout_p=dropout)
        return F.dropout(self._weights(q, k, bias), dropout, self.training).to(v.dtype) @ v

    def _weights(self, q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
        """Return the attention weights, (B, W, T, T)."""
        scores = self._scaled(q) @ k.transpose(-2, -1) * self.head_dim**-0.5 + bias
        return scores.softmax(dim=-1)  # type: ignore[no-any-return]

    def _scaled(self, q: Tensor) -> Tensor:
        """Return (B, W, T, head_dim) so that the usual factor, 1 / sqrt(head_dim), gives the learned temperature."""
        if self.scale is None:
            return q
        return q * self.scale.repeat(q.shape[1] // self.num_heads, 1, 1) * self.head_dim**0.5  # type: ignore[no-any-return]

    def _bias(self, window: int, across: int, shift: int) -> Tensor:
        """Return what is added to the scores, (windows * heads, T, T): the biases, and what keeps areas apart."""
        device = self.relative_position_bias_table.device
        place = torch.arange(window, device=device)
        offset = place[:, None] - place + self.window_size - 1  # from 0 to 2 * window_size - 2
        index = offset[:, None, :, None] * (2 * self.window_size - 1) + offset[None, :, None, :]
        bias = self.relative_position_bias_table[index.reshape(window**2, window**2)].permute(2, 0, 1)
        if self.scale is not None and window > 1:
            bias = bias.masked_fill(torch.eye(window**2, dtype=torch.bool, device=device), float("-inf"))
        bias = bias.expand(across**2, -1, -1, -1)
        if shift:
            bias = bias.masked_fill(_areas_differ(window, across, shift, device)[:, None], _APART)
        return bias.reshape(-1, window**2, window**2)


def _areas_differ(window: int, across: int, shift: int, device: torch.device) -> Tensor:
    """Return whether two patches of a window, bool (windows, T, T), lie at opposite borders of the unshifted map."""
    place = torch.arange(across * window, device=device)
    area = (place >= (across - 1) * window).long() + (place >= across * window - shift)  # along one side
    areas = 3 * area[:, None] + area
    areas = areas.view(across, window, across, window).transpose(1, 2).reshape(across**2, window**2)
    return areas[:, :, None] != areas[:, None, :]


def padded(x: Tensor, *, to_multiple_of: int) -> Tensor:
    """Pad square maps (B, side, side, C) with zeros at the end, so that the side becomes a multiple."""
    missing = -x.shape[1] % to_multiple_of
    return F.pad(x, (0, 0, 0, missing, 0, missing)) if missing else x
