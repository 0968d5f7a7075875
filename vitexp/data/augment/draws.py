"""Random numbers, one for every image of a batch, from the global generator of the images' device."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(images: Tensor, low: float, high: float) -> Tensor:
    """One number an image from [low, high): float32 [B], on the device of `images` [B, ...]."""
    return torch.empty(len(images), device=images.device).uniform_(low, high)


def chance(images: Tensor, prob: float) -> Tensor:
    """True for every image with probability `prob`: bool [B], on the device of `images` [B, ...]."""
    return torch.rand(len(images), device=images.device) < prob


def check_prob(**probs: float) -> None:
    """Raises ValueError, naming the key, where a probability lies outside [0, 1]."""
    for name, prob in probs.items():
        if not 0 <= prob <= 1:
            raise ValueError(f"{name} is a probability between 0 and 1, not {prob}")


def check_amount(**amounts: float) -> None:
    """Raises ValueError, naming the key, where an amount (half the width of a range around "no change") is negative."""
    for name, amount in amounts.items():
        if amount < 0:
            raise ValueError(f"{name} is 0 (off) or positive, not {amount}")


def check_range(**ranges: tuple[float, float]) -> None:
    """Raises ValueError, naming the key, where a range is not 0 < low <= high."""
    for name, (low, high) in ranges.items():
        if not 0 < low <= high:
            raise ValueError(f"{name} is a range [low, high] with 0 < low <= high, not [{low}, {high}]")
