"""Probes of frozen features: how much about the classes a network's features hold, without training the network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NEIGHBORS = 20
_QUERIES = 1024  # at a time


def knn_predict(
    training: Tensor,
    labels: Tensor,
    features: Tensor,
    *,
    num_classes: int,
    neighbors: int = NEIGHBORS,
    temperature: float = 0.07,
) -> Tensor:
    """Return the classes that the nearest training images vote for: int64 [M].

    The neighbors by cosine similarity s vote with weight exp(s / temperature) (Wu et al. 2018, section 3.4). Exact:
    every similarity is computed. Of equal votes, the lower class wins.

    Args:
        training: float [N, D]. labels: int64 [N]. features: float [M, D].
        neighbors: at most N take part.
    """
    training, features = F.normalize(training.float(), dim=1), F.normalize(features.float(), dim=1)
    predicted = []
    for some in torch.split(features, _QUERIES):
        similarity, nearest = (some @ training.T).topk(min(neighbors, len(training)), dim=1)
        votes = similarity.new_zeros(len(some), num_classes)
        # Minus the largest similarity, so that the exponential does not overflow.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        predicted.append(votes.scatter_add_(1, labels[nearest], weights).argmax(dim=1))
    return torch.cat(predicted)


class LinearProbe:
    """Multinomial logistic regression on standardized features, trained to convergence with L-BFGS.

    training: float [N, D]. labels: int64 [N]. l2: weight of half the squared norm of the weights, next to the mean
    cross-entropy. The problem is convex, so that the result does not depend on a seed.
    """

    def __init__(self, training: Tensor, labels: Tensor, *, num_classes: int, l2: float) -> None:
        self.mean = training.float().mean(dim=0)
        self.deviation = training.float().std(dim=0).clamp(min=1e-6)  # of a feature that is always the same
        standardized = self._standardized(training)
        weight = torch.zeros(num_classes, training.shape[1], device=training.device, requires_grad=True)
        bias = torch.zeros(num_classes, device=training.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(F.linear(standardized, weight, bias), labels) + l2 / 2 * weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        self.weight, self.bias = weight.detach(), bias.detach()

    def predict(self, features: Tensor) -> Tensor:
        """Return the classes of features [M, D]: int64 [M]."""
        return F.linear(self._standardized(features), self.weight, self.bias).argmax(dim=1)

    def _standardized(self, features: Tensor) -> Tensor:
        return (features.float() - self.mean) / self.deviation
