"""Test-time augmentation: the mean over a few views of every image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitexp.data.prepare import Prepared
from vitexp.runs.finished import FinishedRun
from vitexp.runs.predict import Change, predict

_STEP = 1  # pixels of a shift, for each 32 of the image


def views(run: FinishedRun) -> dict[str, Change]:
    """The image as it is, and moved a little left, right, up and down; what comes in repeats the edge.

    Each mirrored too, but only for a net that was trained on mirrored images: a mirrored traffic sign is another one.
    """
    step = max(1, _STEP * run.image_size // 32)
    moves = {"as it is": (0, 0), "left": (0, -step), "right": (0, step), "up": (-step, 0), "down": (step, 0)}
    made: dict[str, Change] = {name: _moved(*move) for name, move in moves.items()}
    if run.config.augment.get("flip_prob", 0) > 0:
        made |= {f"{name}, mirrored": _mirrored(change) for name, change in made.items()}
    return made


def predict_views(run: FinishedRun, images: Prepared) -> Tensor:
    """Probabilities, float32 [N, C], averaged over the views."""
    changes = views(run).values()
    return torch.stack([predict(run, images, change=change).softmax(dim=1) for change in changes]).mean(dim=0)


def _moved(down: int, right: int) -> Change:
    def change(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        _, height, width, _ = images.shape
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        return images[:, rows][:, :, columns]

    return change


def _mirrored(change: Change) -> Change:
    return lambda images: np.ascontiguousarray(change(images)[:, :, ::-1])
