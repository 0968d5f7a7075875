"""Faithfulness of explanations: deletion and insertion curves (Petsiuk et al. 2018, RISE, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitexp.explain.methods.occlusion import Predict, probability

_BATCH = 256  # images


def deletion(
    predict: Predict,
    images: Tensor,
    maps: NDArray[np.floating],
    *,
    classes: Sequence[int] | Tensor,
    cells: int,
    steps: int = 16,
    fill: float = 0.0,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return the probability of the class while cells are covered, most important first: float32 [B, steps + 1].

    Low is good: a faithful map first covers what the network needs. Arguments as in `exchange`.
    fill: value of covered pixels; 0 is the mean color of normalized images.
    """
    end = torch.full_like(images, fill)
    return exchange(predict, images, end, maps, classes=classes, cells=cells, steps=steps, seed=seed)


def insertion(
    predict: Predict,
    images: Tensor,
    maps: NDArray[np.floating],
    *,
    classes: Sequence[int] | Tensor,
    cells: int,
    steps: int = 16,
    sigma: float | None = None,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return the probability of the class while a blurred image is sharpened, most important cells first.

    Returns float32 [B, steps + 1]. High is good. Arguments as in `exchange`.
    sigma: standard deviation of the blur in pixels; by default an eighth of the side, which leaves little but colors.
    """
    start = blurred(images, sigma=images.shape[-1] / 8 if sigma is None else sigma)
    return exchange(predict, start, images, maps, classes=classes, cells=cells, steps=steps, seed=seed)


def exchange(
    predict: Predict,
    start: Tensor,
    end: Tensor,
    maps: NDArray[np.floating],
    *,
    classes: Sequence[int] | Tensor,
    cells: int,
    steps: int,
    seed: int,
) -> NDArray[np.float32]:
    """Return the probability of the class while cells of `end` replace those of `start`: float32 [B, steps + 1].

    Args:
        predict: images to logits.
        start, end: float [B, C, H, W] each.
        maps: [B, h, w] of any size; a cell gets the mean of its area. Ties are broken at random by `seed`.
        classes: B classes, one per image.
        cells: cells per side; must be the same for all maps that are compared.
        steps: number of predictions after `start`; the last one is for `end`.

    Raises:
        ValueError: there are more steps than cells, or not one map per image.
    """
    if not 1 <= steps <= cells**2:
        raise ValueError(f"steps={steps} must be from 1 to the number of cells, {cells**2}")
    if maps.ndim != 3 or len(maps) != len(start):
        raise ValueError(f"need one map [h, w] for each of {len(start)} images; got {maps.shape}")
    chosen = torch.as_tensor(classes, device=start.device, dtype=torch.int64)
    rank = _ranks(torch.as_tensor(maps, dtype=torch.float32), cells, seed).to(start.device)
    rank = F.interpolate(rank[:, None].float(), size=start.shape[2:], mode="nearest")  # (B, 1, H, W)
    counts = [round(step * cells**2 / steps) for step in range(steps + 1)]
    at_once = max(1, _BATCH // len(start))  # all states of a single image are one batch
    curve = []
    for first in range(0, len(counts), at_once):
        some = counts[first : first + at_once]
        now = torch.cat([torch.where(rank < count, end, start) for count in some])
        curve.append(probability(predict, now, chosen.repeat(len(some))).view(len(some), len(start)))
    return np.asarray(torch.cat(curve).T.cpu().numpy(), dtype=np.float32)


def area_under(curves: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the area under curves [B, steps + 1] by the trapezoidal rule: float32 [B], in [0, 1]."""
    return np.asarray((curves[:, :-1] + curves[:, 1:]).mean(axis=1) / 2, dtype=np.float32)


def blurred(images: Tensor, *, sigma: float) -> Tensor:
    """Blur images [B, C, H, W] with a Gaussian; borders are reflected if the kernel fits, else repeated."""
    reach = max(1, round(3 * sigma))
    positions = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-(positions**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    mode = "reflect" if reach < min(images.shape[2:]) else "replicate"
    padded = F.pad(images, (reach,) * 4, mode=mode)
    rows = F.conv2d(padded, kernel[:, :, :, None], groups=images.shape[1])
    return F.conv2d(rows, kernel[:, :, None, :], groups=images.shape[1])


def _ranks(maps: Tensor, cells: int, seed: int) -> Tensor:
    """Return the rank of each cell by decreasing importance: int64 [B, cells, cells], from 0."""
    fine = F.interpolate(maps[:, None], size=_multiple(maps.shape[1:], cells), mode="bilinear", align_corners=False)
    values = F.adaptive_avg_pool2d(fine, cells).flatten(1)
    shuffled = torch.randperm(cells**2, generator=torch.Generator().manual_seed(seed))
    order = shuffled[values[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    return order.argsort(dim=1).view(-1, cells, cells)


def _multiple(size: Sequence[int], cells: int) -> tuple[int, int]:
    """Round a size up to a multiple of `cells`."""
    height, width = (-(-side // cells) * cells for side in size)
    return height, width
