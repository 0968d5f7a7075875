"""Measure the frozen features of a run with probes, also those of a pretraining run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitexp.data.prepare import Prepared
from vitexp.explain.explainer import Explainer
from vitexp.explain.methods.probes import NEIGHBORS, LinearProbe, knn_predict
from vitexp.runs.finished import FinishedRun

_L2 = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_BATCH = 512  # images


def measure_probes(run: FinishedRun, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return accuracy (a fraction) and settings by kind of probe, on the run's own validation and test images.

    The features are the input of the classifier. kinds: any of "knn", by a vote of the 20 nearest training images, and
    "linear", by logistic regression on the training images, whose weight decay validation chooses.
    Raises UserError if the data set is missing.
    """
    data, classes = run.data, len(run.classes)
    explainer = Explainer(run)
    train, val, test = (_features(explainer, part) for part in (data.train, data.val, data.test))
    labels, val_labels, test_labels = (torch.from_numpy(part.labels) for part in (data.train, data.val, data.test))
    found: dict[str, dict[str, Any]] = {}
    if "knn" in kinds:
        predicted = [knn_predict(train, labels, features, num_classes=classes) for features in (val, test)]
        found["knn"] = {
            "val": _accuracy(predicted[0], val_labels),
            "test": _accuracy(predicted[1], test_labels),
            "neighbors": NEIGHBORS,
        }
    if "linear" in kinds:
        probes = [LinearProbe(train, labels, num_classes=classes, l2=l2) for l2 in _L2]
        on_val = [_accuracy(probe.predict(val), val_labels) for probe in probes]
        best = int(np.argmax(on_val))
        on_test = _accuracy(probes[best].predict(test), test_labels)
        found["linear"] = {"val": on_val[best], "test": on_test, "l2": _L2[best]}
    return found


def _features(explainer: Explainer[FinishedRun], images: Prepared) -> Tensor:
    parts = [
        explainer.embeddings(images.images(np.arange(at, min(at + _BATCH, len(images)))))
        for at in range(0, len(images), _BATCH)
    ]
    return torch.from_numpy(np.concatenate(parts))


def _accuracy(predicted: Tensor, labels: Tensor) -> float:
    return (predicted == labels).float().mean().item()
