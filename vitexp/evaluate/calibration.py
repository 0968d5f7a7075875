"""How far confidences can be trusted, before and after temperature scaling (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitexp.training.classification import classification_metrics

BINS = 15  # as in result.json
_HOTTEST = 100.0


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Images by confidence, in equally wide bins of [0, 1]: [BINS] each.

    accuracy, confidence: means over the images of a bin, NaN where it is empty. counts: int64.
    """

    accuracy: NDArray[np.float64]
    confidence: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def ece(self) -> float:
        """Expected calibration error: the gaps between accuracy and confidence, weighed by images."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float((gaps * self.counts[filled]).sum() / self.counts.sum())


def reliability(probabilities: Tensor, labels: Tensor) -> Reliability:
    """probabilities float [N, C], labels int64 [N]."""
    confidence, predicted = (each.numpy() for each in probabilities.double().max(dim=1))
    right = predicted == labels.numpy()
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(number, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(number, each, BINS) / counts for each in (right, confidence)]
    return Reliability(accuracy=means[0], confidence=means[1], counts=counts)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature by which logits are divided so that the cross entropy is lowest: float [N, C], int64 [N].

    To be fitted on validation images, never on those that are then reported. The cross entropy is convex in the inverse
    temperature, so the place where its slope changes sign, found by halving, is the lowest. Between 1/100 and 100:
    where every image is right, or most are wrong, there is no lowest in between.
    """
    logits = logits.double()
    of_label = logits.gather(1, labels[:, None]).squeeze(1)

    def slope(inverse: float) -> float:
        """Of the mean cross entropy, by the inverse temperature."""
        expected = ((logits * inverse).softmax(dim=1) * logits).sum(dim=1)
        return float((expected - of_label).mean())

    low, high = -math.log(_HOTTEST), math.log(_HOTTEST)  # logarithms of the inverse temperature
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(math.exp(middle)) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def calibrated(logits: Tensor, labels: Tensor, temperature: float) -> dict[str, float]:
    """What changes with the temperature, of the metrics of result.json: ece and loss."""
    scaled = logits / temperature
    return {
        "ece": float(classification_metrics(scaled.softmax(dim=1), labels)["ece"]),
        "loss": float(F.cross_entropy(scaled, labels)),
    }


def as_numbers(before: Reliability) -> list[dict[str, float | int | None]]:
    """The bins for JSON, from the lowest confidence to the highest."""
    edges = torch.linspace(0, 1, BINS + 1).tolist()
    return [
        {
            "from": round(edges[bin_], 4),
            "to": round(edges[bin_ + 1], 4),
            "images": int(before.counts[bin_]),
            "accuracy": None if math.isnan(before.accuracy[bin_]) else float(before.accuracy[bin_]),
            "confidence": None if math.isnan(before.confidence[bin_]) else float(before.confidence[bin_]),
        }
        for bin_ in range(BINS)
    ]
