"""Random numbers per image of a batch, from the global generator of the images' device."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(images: Tensor, low: float, high: float) -> Tensor:
    """Draw one number per image from [low, high): float32 [B], on the device of `images` [B, ...]."""
    return torch.empty(len(images), device=images.device).uniform_(low, high)


def chance(images: Tensor, prob: float) -> Tensor:
    """Draw True with probability `prob` per image: bool [B], on the device of `images` [B, ...]."""
    return torch.rand(len(images), device=images.device) < prob


def check_prob(**probs: float) -> None:
    """Raise ValueError if a probability is outside [0, 1]."""
    for name, prob in probs.items():
        if not 0 <= prob <= 1:
            raise ValueError(f"{name}={prob} must be a probability between 0 and 1")


def check_amount(**amounts: float) -> None:
    """Raise ValueError if an amount (half the width of a range around "no change") is negative."""
    for name, amount in amounts.items():
        if amount < 0:
            raise ValueError(f"{name}={amount} must be 0 (off) or positive")


def check_range(**ranges: tuple[float, float]) -> None:
    """Raise ValueError unless 0 < low <= high."""
    for name, (low, high) in ranges.items():
        if not 0 < low <= high:
            raise ValueError(f"{name}=[{low}, {high}] must be a range with 0 < low <= high")
