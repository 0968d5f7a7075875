"""Embeddings: the input of the classifier, its layout in a plane, and the nearest neighbors of an image."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitexp.explain.methods.grad_cam import calls_of

Method = Literal["pca", "tsne", "umap"]
_PACKAGES: dict[Method, str] = {"pca": "numpy", "tsne": "sklearn", "umap": "umap"}


def available_methods() -> list[Method]:
    """Return the installed methods of `in_plane`: "pca"; "tsne" needs scikit-learn, "umap" needs umap-learn."""
    return [method for method, package in _PACKAGES.items() if find_spec(package)]


@torch.no_grad()
def embeddings(net: nn.Module, head: nn.Module, images: Tensor, *, batch_size: int = 256) -> NDArray[np.float32]:
    """Return the input of the classifier: float32 [B, D]; for a ViT with a class token, that token after the last norm.

    Args:
        head: the module of `net` that computes the logits.
        images: float [B, C, H, W], normalized.

    Raises:
        ValueError: the network does not call `head`.
    """
    with calls_of(head) as calls:
        for some in torch.split(images, batch_size):
            net(some)
    if not calls:
        raise ValueError("the network does not call this layer")
    return np.asarray(torch.cat([given for given, _ in calls]).float().cpu().numpy(), dtype=np.float32)


class Plane(NamedTuple):
    """Embeddings in a plane: training float32 [N, 2] and given float32 [M, 2].

    shares: the fraction of the variance of the training images along each axis; None unless the method is "pca".
    """

    training: NDArray[np.float32]
    given: NDArray[np.float32]
    shares: tuple[float, float] | None


def in_plane(
    training: NDArray[np.floating], given: NDArray[np.floating], *, method: Method = "pca", seed: int = 0
) -> Plane:
    """Project embeddings onto a plane: training [N, D] and given [M, D].

    "pca" fits the plane to the training images only. "tsne" and "umap", which cannot map new points, lay out all
    embeddings together; distances between groups then carry little meaning.

    Raises:
        ValueError: fewer than 3 training images, or the package of the method is not installed.
    """
    if len(training) < 3:
        raise ValueError(f"need at least 3 training images for a plane; got {len(training)}")
    if method not in available_methods():
        raise ValueError(f"method={method!r} must be one of {', '.join(available_methods())}")
    shares = None
    if method == "pca":
        center = training.mean(axis=0)
        spread = (training - center).astype(np.float64)
        variances, directions = np.linalg.eigh(spread.T @ spread)  # sorted by increasing variance
        first, second = variances[:-3:-1] / max(float(variances.sum()), 1e-12)
        shares = float(first), float(second)
        points: Any = (np.concatenate([training, given]) - center) @ directions[:, :-3:-1]
    elif method == "tsne":
        from sklearn.manifold import TSNE

        together = np.concatenate([training, given])
        perplexity = min(30.0, (len(together) - 1) / 3)
        points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(together)
    else:
        import umap

        together = np.concatenate([training, given])
        # Start from PCA, because UMAP's spectral start fails on well separated groups; one job, because a seed requires
        # it. UMAP would warn about both.
        start = np.concatenate(in_plane(training, given)[:2])
        layout = umap.UMAP(n_neighbors=min(15, len(together) - 1), init=start, random_state=seed, n_jobs=1)
        points = layout.fit_transform(together)
    points = np.asarray(points, dtype=np.float32)
    return Plane(points[: len(training)], points[len(training) :], shares)


def nearest(
    training: NDArray[np.floating], given: NDArray[np.floating], *, neighbors: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the training images nearest to each given one: indices int64 [M, K], cosine similarities float32 [M, K].

    K is `neighbors`, or the number of training images if that is smaller; the most similar first.
    """
    similarity = _unit(given) @ _unit(training).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :neighbors]
    return order.astype(np.int64), np.take_along_axis(similarity, order, axis=1).astype(np.float32)


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
