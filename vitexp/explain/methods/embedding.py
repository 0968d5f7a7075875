"""What a net makes of images just before it decides: its embeddings in a plane, and an image's nearest neighbours."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitexp.explain.methods.grad_cam import calls_of

Method = Literal["pca", "tsne", "umap"]
_PACKAGES: dict[Method, str] = {"pca": "numpy", "tsne": "sklearn", "umap": "umap"}


def available_methods() -> list[Method]:
    """The methods of `in_plane` that are installed: "pca" always, "tsne" with scikit-learn, "umap" with umap-learn."""
    return [method for method, package in _PACKAGES.items() if find_spec(package)]


@torch.no_grad()
def embeddings(net: nn.Module, head: nn.Module, images: Tensor, *, batch_size: int = 256) -> NDArray[np.float32]:
    """What enters the classifier: float32 [B, D]. For a ViT with a class token, that token after the last norm.

    Args:
        head: the module of `net` that makes logits of it.
        images: float [B, C, H, W], as the net takes them.

    Raises:
        ValueError: the net does not call `head`.
    """
    with calls_of(head) as calls:
        for some in torch.split(images, batch_size):
            net(some)
    if not calls:
        raise ValueError("the net does not call that layer")
    return np.asarray(torch.cat([given for given, _ in calls]).float().cpu().numpy(), dtype=np.float32)


def in_plane(
    training: NDArray[np.floating], given: NDArray[np.floating], *, method: Method = "pca", seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings as points of a plane: training [N, D] and given [M, D] to float32 [N, 2] and [M, 2].

    With "pca" the plane is that of the training images alone; with "tsne" and "umap", which have no map for new
    points, all are laid out together, and distances between groups say little.

    Raises:
        ValueError: fewer than 3 training images, or the package of the method is not installed.
    """
    if len(training) < 3:
        raise ValueError(f"need 3 training images or more to lay out a plane; got {len(training)}")
    if method not in available_methods():
        raise ValueError(f"{method!r} is none of {', '.join(available_methods())}")
    if method == "pca":
        centre = training.mean(axis=0)
        spread = (training - centre).astype(np.float64)
        _, directions = np.linalg.eigh(spread.T @ spread)  # by growing variance
        points: Any = (np.concatenate([training, given]) - centre) @ directions[:, :-3:-1]
    elif method == "tsne":
        from sklearn.manifold import TSNE

        together = np.concatenate([training, given])
        perplexity = min(30.0, (len(together) - 1) / 3)
        points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(together)
    else:
        import umap

        together = np.concatenate([training, given])
        # From PCA, because its spectral start fails on groups that lie apart, which a good net makes; and in one job,
        # as a seed asks for. It would warn of both.
        start = np.concatenate(in_plane(training, given))
        layout = umap.UMAP(n_neighbors=min(15, len(together) - 1), init=start, random_state=seed, n_jobs=1)
        points = layout.fit_transform(together)
    points = np.asarray(points, dtype=np.float32)
    return points[: len(training)], points[len(training) :]


def nearest(
    training: NDArray[np.floating], given: NDArray[np.floating], *, neighbours: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The training images most like each given one: indices int64 [M, K] and cosine similarities float32 [M, K].

    K is `neighbours`, or the number of training images where that is smaller; the most alike first.
    """
    alike = _unit(given) @ _unit(training).T
    order = np.argsort(-alike, axis=1, kind="stable")[:, :neighbours]
    return order.astype(np.int64), np.take_along_axis(alike, order, axis=1).astype(np.float32)


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
