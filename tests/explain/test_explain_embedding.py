from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from tests.explain.nets import vit
from vitexp.explain.methods.embedding import available_methods, embeddings, in_plane, nearest


@pytest.mark.parametrize("options", [{}, {"pool": "gap"}, {"head": "mlp"}])
def test_embeddings_make_the_logits(options: dict[str, str]) -> None:
    net, images = vit(**options), torch.randn(5, 3, 16, 16)
    vectors = embeddings(net, net.head, images, batch_size=2)
    assert vectors.shape == (5, 24) and vectors.dtype == np.float32
    with torch.no_grad():
        torch.testing.assert_close(net.head(torch.from_numpy(vectors)), net(images), rtol=1e-4, atol=1e-4)
    if not options:
        np.testing.assert_allclose(vectors, net.forward_features(images)[:, 0].detach(), atol=1e-4)


def test_embeddings_of_a_layer_that_is_not_called() -> None:
    with pytest.raises(ValueError, match="does not call"):
        embeddings(vit(), nn.Linear(1, 1), torch.randn(1, 3, 16, 16))


def test_plane_against_scikit_learn() -> None:
    random = np.random.default_rng(0)
    training, given = random.normal(size=(50, 6)) * [5, 1, 3, 1, 1, 1] + 2, random.normal(size=(3, 6))
    points, stars, shares = in_plane(training, given)
    assert points.shape == (50, 2) and stars.shape == (3, 2) and points.dtype == stars.dtype == np.float32
    reference = PCA(2).fit(training)
    sign = np.sign((points * reference.transform(training)).sum(axis=0))
    np.testing.assert_allclose(points * sign, reference.transform(training), atol=1e-4)
    np.testing.assert_allclose(stars * sign, reference.transform(given), atol=1e-4)
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_)


def test_other_planes_keep_groups_together() -> None:
    assert available_methods()[0] == "pca"
    training = np.repeat(np.eye(8)[:2] * 50, 20, axis=0) + np.random.default_rng(0).normal(size=(40, 8))
    for method in available_methods()[1:]:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            points, stars, shares = in_plane(training, training[:1], method=method)
        assert points.shape == (40, 2) and stars.shape == (1, 2) and shares is None
        np.testing.assert_array_equal(in_plane(training, training[:1], method=method)[0], points)
        centres = points[:20].mean(axis=0), points[20:].mean(axis=0)
        near, far = (np.linalg.norm(stars[0] - centre) for centre in centres)
        assert near < far


def test_plane_of_too_little_or_by_what_is_unknown() -> None:
    with pytest.raises(ValueError, match="got 2"):
        in_plane(np.eye(2), np.eye(2))
    with pytest.raises(ValueError, match="method='isomap' must be one of pca"):
        in_plane(np.eye(5), np.eye(5), method="isomap")  # type: ignore[arg-type]


def test_nearest_by_hand() -> None:
    training = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 0.0]])
    indices, alike = nearest(training, np.array([[5.0, 1.0]]), neighbors=3)
    assert indices.tolist() == [[0, 2, 1]] and indices.dtype == np.int64 and alike.dtype == np.float32
    np.testing.assert_allclose(alike, [[5 / 26**0.5, 6 / 52**0.5, 1 / 26**0.5]], rtol=1e-6)
    assert nearest(training, training, neighbors=9)[0].shape == (4, 4)
