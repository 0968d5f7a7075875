"""Classification losses for soft targets.

A loss is called with logits, float32 [B, C], and targets, float32 [B, C] whose rows sum to 1 (mixup and CutMix blend
labels), and returns the mean over the batch, a scalar. Your own class, or one from torch.nn such as CrossEntropyLoss,
works as `loss` too. With `loss.class_weights=balanced` a run passes N / (C * n_c) for each class c that has n_c of the
N training images (`balanced_weights`).

The weighted losses are divided by B, not by the sum of the weights, so that processes can average their gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.options import Doc, Field, Rate

Weight = Annotated[float, Field(ge=0, le=1e6)]
LabelSmoothing = Annotated[Rate, Doc("fraction of the target that is spread evenly over all classes")]
ClassWeights = Annotated[
    list[Weight] | Literal["balanced"] | None,
    Doc("factor per class: a list, or balanced (inverse to the size of the class); null: all 1"),
]


class ClassificationLoss(nn.Module, ABC):
    """A loss with label smoothing (Szegedy et al. 2016, section 7) and class weights, a sequence of C numbers or None.

    Raises ValueError for class_weights="balanced": only a run knows the training images.
    """

    def __init__(self, *, label_smoothing: LabelSmoothing = 0.0, class_weights: ClassWeights = None) -> None:
        super().__init__()
        if isinstance(class_weights, str):
            raise ValueError(f"class_weights={class_weights} must be a list of numbers; see balanced_weights.")
        self.label_smoothing = label_smoothing
        self.class_weights: Tensor | None
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def _smoothed(self, targets: Tensor) -> Tensor:
        return targets * (1.0 - self.label_smoothing) + self.label_smoothing / targets.shape[1]

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss: logits float32 [B, C], targets float32 [B, C] -> scalar."""


class CrossEntropy(ClassificationLoss):
    """Softmax cross-entropy."""

    def __init__(self, *, label_smoothing: LabelSmoothing = 0.1, class_weights: ClassWeights = None) -> None:
        super().__init__(label_smoothing=label_smoothing, class_weights=class_weights)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, weight=self.class_weights, label_smoothing=self.label_smoothing)


class Focal(ClassificationLoss):
    """Cross-entropy times (1 - p)^gamma, p the probability of the target class: focal loss (Lin et al. 2017).

    A confident, correct prediction counts less. For soft targets the terms of the classes are weighted by the targets.
    """

    def __init__(
        self,
        *,
        gamma: Annotated[
            float, Field(ge=0, le=100), Doc("how strongly easy images are down-weighted; 0: cross-entropy")
        ] = 2.0,
        label_smoothing: LabelSmoothing = 0.0,
        class_weights: ClassWeights = None,
    ) -> None:
        super().__init__(label_smoothing=label_smoothing, class_weights=class_weights)
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        # 1 - p is exactly 0 for a prediction with probability 1, where the gradient of a power below 1 is infinite.
        losses = -self._smoothed(targets) * (-torch.expm1(log_p)).clamp(min=1e-7) ** self.gamma * log_p
        return (losses if self.class_weights is None else losses * self.class_weights).sum(dim=1).mean()


class BinaryCrossEntropy(ClassificationLoss):
    """Binary cross-entropy of each class, averaged over classes (Wightman et al. 2021, "ResNet strikes back")."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, self._smoothed(targets), weight=self.class_weights)


def balanced_weights(labels: ArrayLike, num_classes: int) -> list[float]:
    """Return N / (C * n_c) for each class of `labels`, integers [N]; a class without images counts as if it had one."""
    counts = np.bincount(np.asarray(labels), minlength=num_classes).clip(min=1)
    return (np.size(labels) / (num_classes * counts)).tolist()  # type: ignore[no-any-return]
