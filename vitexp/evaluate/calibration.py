"""Calibration before and after temperature scaling (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitexp.explain.figures import ReliabilityPanel
from vitexp.metrics import METRICS
from vitexp.training.classification import classification_metrics

BINS = 15  # as in result.json
_MAX_TEMPERATURE = 100.0


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Test images by confidence, in bins of equal width over [0, 1].

    accuracy, confidence: float64 [BINS], means per bin, NaN for an empty one. counts: int64 [BINS], images per bin.
    """

    accuracy: NDArray[np.float64]
    confidence: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def ece(self) -> float:
        """The expected calibration error: the mean gap between accuracy and confidence, weighted by bin counts."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float((gaps * self.counts[filled]).sum() / self.counts.sum())

    def panel(self, title: str) -> ReliabilityPanel:
        """Return a panel of the reliability diagram."""
        return ReliabilityPanel(title=title, accuracy=self.accuracy, confidence=self.confidence, counts=self.counts)

    def as_json(self) -> list[dict[str, float | int | None]]:
        """Return the bins, from the lowest confidence to the highest."""
        edges = np.linspace(0, 1, BINS + 1).round(4).tolist()
        means = (
            [None if math.isnan(each) else each for each in of.tolist()] for of in (self.accuracy, self.confidence)
        )
        return [
            {"from": low, "to": high, "images": images, "accuracy": accuracy, "confidence": confidence}
            for low, high, images, accuracy, confidence in zip(
                edges[:-1], edges[1:], self.counts.tolist(), *means, strict=True
            )
        ]


def reliability(probabilities: Tensor, labels: Tensor) -> Reliability:
    """Sort images into bins by confidence. probabilities: float [N, C]; labels: int64 [N]."""
    confidence, predicted = (each.numpy() for each in probabilities.double().max(dim=1))
    correct = predicted == labels.numpy()
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(index, minlength=BINS)
    with np.errstate(invalid="ignore"):
        accuracy, mean_confidence = (np.bincount(index, each, BINS) / counts for each in (correct, confidence))
    return Reliability(accuracy=accuracy, confidence=mean_confidence, counts=counts)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature T in [1/100, 100] that minimizes the cross-entropy of logits / T.

    logits: float [N, C]; labels: int64 [N]; of validation images, never of the images whose results are reported. The
    cross-entropy is convex in 1/T, so bisection finds the zero of its derivative.
    """
    logits = logits.double()
    of_label = logits.gather(1, labels[:, None]).squeeze(1)

    def slope(inverse: float) -> float:
        """Return the derivative of the mean cross-entropy with respect to 1/T."""
        expected = ((logits * inverse).softmax(dim=1) * logits).sum(dim=1)
        return float((expected - of_label).mean())

    low, high = -math.log(_MAX_TEMPERATURE), math.log(_MAX_TEMPERATURE)  # of log(1/T)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(math.exp(middle)) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def measure_calibration(
    logits: Tensor, labels: Tensor, *, validation: tuple[Tensor, Tensor] | None
) -> tuple[dict[str, Any], list[ReliabilityPanel]]:
    """Measure the calibration on test images, as trained and with a temperature fitted on validation images.

    logits: float [N, C]; labels: int64 [N]; validation: logits and labels of the validation images, if there are any.
    Returns the results for evaluation.json, and the panels of the figure.
    """
    before = reliability(logits.softmax(dim=1), labels)
    ece = calibrated(logits, labels, 1.0)["ece"]
    results: dict[str, Any] = {"ece": ece, "bins": before.as_json(), "temperature": None}
    panels = [before.panel(f"As trained: ECE {METRICS['ece'].format(ece)}")]
    if validation is not None:
        temperature = fit_temperature(*validation)
        scaled = calibrated(logits, labels, temperature)
        results |= {
            "temperature": temperature,
            "fitted_on": {"images": len(validation[1])},
            "ece_scaled": scaled["ece"],
            "loss_scaled": scaled["loss"],
        }
        after = reliability((logits / temperature).softmax(dim=1), labels)
        panels.append(after.panel(f"Temperature {temperature:.3f}: ECE {METRICS['ece'].format(scaled['ece'])}"))
    return results, panels


def calibrated(logits: Tensor, labels: Tensor, temperature: float) -> dict[str, float]:
    """Return the two metrics of result.json that depend on the temperature: ece and loss."""
    scaled = logits / temperature
    return {
        "ece": float(classification_metrics(scaled.softmax(dim=1), labels)["ece"]),
        "loss": float(F.cross_entropy(scaled, labels)),
    }
