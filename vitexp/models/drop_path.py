"""Stochastic depth (Huang et al. 2016): whole residual branches are dropped, image by image."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes a sample's branch with probability `rate` in training, and divides what is kept by 1 - rate.

    The expected value is that of the input; in evaluation it is the identity.
    """

    def __init__(self, *, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"The drop path rate is {rate}; it must be at least 0 and below 1.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty(x.shape[0], *(1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


def drop_path_rates(*, maximum: float, depth: int) -> list[float]:
    """The rates of `depth` blocks: linear from 0 to `maximum` (Huang et al. 2016, section 3)."""
    return [maximum * block / max(depth - 1, 1) for block in range(depth)]
