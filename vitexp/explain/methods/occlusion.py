"""Occlusion sensitivity (Zeiler and Fergus 2014, section 4.2): what the network loses when a window is covered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Predict = Callable[[Tensor], Tensor]  # images [B, C, H, W] to logits [B, classes]


@torch.no_grad()
def occlusion(
    predict: Predict,
    images: Tensor,
    *,
    classes: Sequence[int] | Tensor,
    window: int,
    stride: int,
    fill: float = 0.0,
    batch_size: int = 256,
) -> NDArray[np.float32]:
    """Return how much the probability of a class falls when a square is covered: float32 [B, H, W], in [-1, 1].

    The value of a pixel is the mean over all windows that cover it. Needs neither gradients nor attention.

    Args:
        predict: images to logits.
        images: float [B, C, H, W], normalized.
        classes: B classes, one per image.
        window: pixels per side; windows may be cut off at the border.
        stride: pixels from one window to the next.
        fill: value of covered pixels; 0 is the mean color of normalized images.

    Raises:
        ValueError: `stride` leaves pixels uncovered, or a size is not positive.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride={stride} must be at least 1 and at most window={window}")
    batch, _, height, width = images.shape
    chosen = torch.as_tensor(classes, device=images.device, dtype=torch.int64)
    whole = probability(predict, images, chosen, batch_size)
    lost = torch.zeros(batch, height, width, device=images.device)
    times = torch.zeros(height, width, device=images.device)
    windows = list(_windows(height, width, window, stride))
    at_once = max(1, batch_size // batch)
    for start in range(0, len(windows), at_once):
        places = windows[start : start + at_once]
        covered = images.repeat(len(places), 1, 1, 1).view(len(places), *images.shape)
        for copy, (rows, columns) in zip(covered, places, strict=True):
            copy[:, :, rows, columns] = fill
        left = probability(predict, covered.flatten(0, 1), chosen.repeat(len(places)), batch_size)
        for (rows, columns), drop in zip(places, whole - left.view(len(places), batch), strict=True):
            lost[:, rows, columns] += drop[:, None, None]
            times[rows, columns] += 1
    return np.asarray((lost / times).cpu().numpy(), dtype=np.float32)


@torch.no_grad()
def probability(predict: Predict, images: Tensor, classes: Tensor, batch_size: int = 256) -> Tensor:
    """Return the probability of one class per image: float32 [B]."""
    parts = zip(torch.split(images, batch_size), torch.split(classes, batch_size), strict=True)
    return torch.cat([predict(some).float().softmax(dim=1).gather(1, chosen[:, None])[:, 0] for some, chosen in parts])


def _windows(height: int, width: int, window: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Yield the windows; the last one of a row or column is the first that reaches the border."""
    for top in range(0, max(height - window, 0) + stride, stride):
        for left in range(0, max(width - window, 0) + stride, stride):
            yield slice(top, top + window), slice(left, left + window)
