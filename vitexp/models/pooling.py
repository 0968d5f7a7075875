"""From tokens (B, T, dim) to one vector per image (B, dim), and from it to logits."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Head = Literal["linear", "mlp"]


class SequencePool(nn.Module):
    """A learned weighted mean of the tokens (SeqPool of CCT, Hassani et al. 2021, section 3.3)."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def weights(self, tokens: Tensor) -> Tensor:
        """Return the weights of tokens (B, T, dim) in the mean: (B, T), summing to 1."""
        return self.score(tokens).squeeze(-1).softmax(dim=-1)  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.weights(tokens).unsqueeze(1) @ tokens).squeeze(1)  # (B, 1, T) @ (B, T, dim)


def classifier(head: Head, *, dim: int, num_classes: int) -> nn.Module:
    """Build a head (B, dim) -> logits (B, num_classes): linear, or for "mlp" with a hidden tanh layer before."""
    last = nn.Linear(dim, num_classes)
    return nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), last) if head == "mlp" else last
