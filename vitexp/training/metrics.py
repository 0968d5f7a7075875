"""What is measured on validation and test images."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)


def classification_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The metrics of result.json but the loss, of a whole set: probabilities float [N, C], labels int64 [N].

    Macro means weigh classes alike and leave out those that neither occur nor are predicted; ece is the expected
    calibration error over 15 bins (Guo et al. 2017). Top-5 means top-C where there are fewer classes.
    """
    both, classes = (probabilities, labels), probabilities.shape[1]
    return {
        "accuracy": multiclass_accuracy(*both, classes, average="micro"),
        "accuracy_top5": multiclass_accuracy(*both, classes, average="micro", top_k=min(5, classes)),
        "precision_macro": multiclass_precision(*both, classes, average="macro"),
        "recall_macro": multiclass_recall(*both, classes, average="macro"),
        "f1_macro": multiclass_f1_score(*both, classes, average="macro"),
        "f1_weighted": multiclass_f1_score(*both, classes, average="weighted"),
        "ece": multiclass_calibration_error(*both, classes, n_bins=15),
    }
