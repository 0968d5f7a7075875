"""The logits of a net for a whole set of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitexp.data.prepare import Prepared
from vitexp.runs.finished import FinishedRun
from vitexp.training.classification import classification_metrics

Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def predict(run: FinishedRun, images: Prepared, *, change: Change | None = None) -> Tensor:
    """Logits, float32 [N, C] on the CPU, in the batches of the run's own test, on which the last bits depend.

    change: applied to the images of each batch, uint8 [B, S, S, 3] to the same.
    """
    size, logits = int(run.config.data.batch_size), []
    for start in range(0, len(images), size):
        batch = images.images(np.arange(start, min(start + size, len(images))))
        logits.append(run.logits(batch if change is None else change(batch)).cpu())
    return torch.cat(logits)


def measured(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The metrics of result.json, with the same code: logits float32 [N, C], labels int64 [N]."""
    metrics = classification_metrics(logits.softmax(dim=1), labels)
    metrics["loss"] = F.cross_entropy(logits, labels, reduction="none").mean()
    return {name: float(value) for name, value in metrics.items()}
