"""What is measured on validation and test images."""

from __future__ import annotations

from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)


def classification_metrics(num_classes: int) -> MetricCollection:
    """The metrics of result.json but the loss, updated with (probabilities float [B, C], labels int64 [B]).

    Macro means weigh classes alike and leave out those that neither occur nor are predicted; ece is the expected
    calibration error over 15 bins (Guo et al. 2017). Top-5 means top-C where there are fewer classes.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "accuracy_top5": MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes)),
        "precision_macro": MulticlassPrecision(num_classes, average="macro"),
        "recall_macro": MulticlassRecall(num_classes, average="macro"),
        "f1_macro": MulticlassF1Score(num_classes, average="macro"),
        "f1_weighted": MulticlassF1Score(num_classes, average="weighted"),
        "ece": MulticlassCalibrationError(num_classes, n_bins=15),
    }
    return MetricCollection(metrics)
