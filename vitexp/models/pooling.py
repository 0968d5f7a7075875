"""Pooling of tokens (B, T, dim) to one vector an image (B, dim)."""

from __future__ import annotations

from torch import Tensor, nn


class SequencePool(nn.Module):
    """A learned weighted mean of the tokens (SeqPool of CCT, Hassani et al. 2021, section 3.3)."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def weights(self, tokens: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T): the share of every token, summing to 1."""
        return self.score(tokens).squeeze(-1).softmax(dim=-1)  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.weights(tokens).unsqueeze(1) @ tokens).squeeze(1)  # (B, 1, T) @ (B, T, dim)
