"""The metrics of result.json against scikit-learn, also where classes are absent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_recall_fscore_support
from torch.nn import functional as F

from vitexp.training.classification import classification_metrics


def measured(labels: list[int], predicted: list[int], classes: int) -> dict[str, float]:
    probabilities = F.one_hot(torch.tensor(predicted), classes).float()
    return {name: float(each) for name, each in classification_metrics(probabilities, torch.tensor(labels)).items()}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("seed", range(20))
def test_macro_means_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))
    labels, predicted = (
        rng.choice(rng.permutation(classes)[: rng.integers(1, classes + 1)], 30).tolist() for _ in range(2)
    )
    metrics = measured(labels, predicted, classes)
    macro, weighted = (
        precision_recall_fscore_support(labels, predicted, average=average) for average in ("macro", "weighted")
    )
    names = ("precision_macro", "recall_macro", "f1_macro")
    assert [metrics[name] for name in names] == pytest.approx(macro[:3], abs=1e-6)
    assert metrics["f1_weighted"] == pytest.approx(weighted[2], abs=1e-6)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-6)


def test_an_absent_class_counts_only_if_it_is_predicted() -> None:
    perfect = measured([0, 0, 2], [0, 0, 2], 6)
    assert [perfect[name] for name in ("precision_macro", "recall_macro", "f1_macro")] == [1, 1, 1]
    labels, predicted = [0, 0, 2, 2], [0, 1, 2, 2]
    metrics = measured(labels, predicted, 6)
    assert metrics["recall_macro"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert metrics["precision_macro"] == pytest.approx((1 + 0 + 1) / 3)
    with pytest.warns(UserWarning, match="not in y_true"):
        assert balanced_accuracy_score(labels, predicted) == pytest.approx((0.5 + 1) / 2)
