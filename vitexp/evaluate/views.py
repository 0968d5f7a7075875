"""Test-time augmentation: the mean prediction over several views of each image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitexp.data.prepare import Prepared
from vitexp.runs.finished import Change, FinishedRun

_SHIFT = 1  # pixels per 32 pixels of image size


def views(run: FinishedRun) -> dict[str, Change]:
    """Return the views by name: the original image, and copies shifted left, right, up and down with edges repeated.

    Mirrored views are added only if the run was trained with flips: a mirrored traffic sign is a different sign.
    """
    step = max(1, _SHIFT * run.image_size // 32)
    shifts = {"original": (0, 0), "left": (0, -step), "right": (0, step), "up": (-step, 0), "down": (step, 0)}
    changes: dict[str, Change] = {name: _shift(*shift) for name, shift in shifts.items()}
    if run.config.augment.get("flip_prob", 0) > 0:
        changes |= {f"{name}, mirrored": _mirror(change) for name, change in changes.items()}
    return changes


def predict_views(run: FinishedRun, images: Prepared) -> Tensor:
    """Return probabilities, float32 [N, C], averaged over the views."""
    return torch.stack([run.all_logits(images, change=change).softmax(dim=1) for change in views(run).values()]).mean(0)


def _shift(down: int, right: int) -> Change:
    def change(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        _, height, width, _ = images.shape
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        return images[:, rows][:, :, columns]

    return change


def _mirror(change: Change) -> Change:
    return lambda images: np.ascontiguousarray(change(images)[:, :, ::-1])
