"""Probes of frozen features, compared with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from vitexp.explain.methods.probes import LinearProbe, knn_predict


def clusters(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return features [N, 8] around one center per class, on different scales, and labels [N]."""
    centers = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (images,), generator=random)
    noise = torch.randn(images, 8, generator=random)
    return (centers[labels] + noise) * torch.logspace(-1, 1, 8), labels


@pytest.mark.parametrize("neighbors", [1, 7, 20])
def test_votes_of_the_nearest_neighbors(neighbors: int) -> None:
    (training, labels), (features, truth) = clusters(200, 1), clusters(1500, 2)
    predicted = knn_predict(training, labels, features, num_classes=5, neighbors=neighbors)

    def weight(distances: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.exp((1 - distances) / 0.07)

    reference = KNeighborsClassifier(neighbors, metric="cosine", weights=weight).fit(training.numpy(), labels.numpy())
    np.testing.assert_array_equal(predicted.numpy(), reference.predict(features.numpy()))
    assert 0.4 < (predicted == truth).float().mean() < 0.95


def test_more_neighbors_than_images_are_all_of_them() -> None:
    training, labels = torch.eye(3), torch.tensor([2, 0, 1])
    predicted = knn_predict(training, labels, torch.eye(3) * 5 + 0.1, num_classes=3, neighbors=50)
    assert predicted.tolist() == [2, 0, 1]


def test_logistic_regression() -> None:
    (training, labels), (features, truth) = clusters(300, 1), clusters(500, 2)
    probe = LinearProbe(training, labels, num_classes=5, l2=1e-2)
    scaled = (training - training.mean(0)) / training.std(0)
    reference = LogisticRegression(C=1 / (300 * 1e-2), tol=1e-8, max_iter=10_000).fit(scaled, labels)
    np.testing.assert_allclose(probe.weight.numpy(), reference.coef_, atol=2e-3)
    assert (probe.predict(features) == truth).float().mean() > 0.6


def test_a_constant_feature_is_harmless() -> None:
    training, labels = clusters(100, 1)
    training[:, 3] = 7
    assert LinearProbe(training, labels, num_classes=5, l2=1e-4).weight.isfinite().all()
