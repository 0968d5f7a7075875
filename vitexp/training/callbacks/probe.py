"""A probe of the features that a network learns without labels, after each epoch."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from vitexp.data.prepare import Prepared
from vitexp.explain.methods.probes import knn_predict
from vitexp.options import Doc, Field
from vitexp.training.callbacks.explanations import as_in_the_test, explainer_of
from vitexp.training.task import Task, data_of


class KnnProbe(Callback):
    """A callback that logs val/knn_accuracy after each validation of a task that does not use labels.

    The fraction of validation images whose class the 20 nearest training images vote for, by the features that a
    classifier would get (vitexp.explain.methods.probes.knn_predict). The labels do not take part in training.
    """

    can_change_result = False
    uses_labels = False  # of the tasks that it measures

    def __init__(
        self,
        *,
        training: Annotated[
            int, Field(ge=1, le=10**6), Doc("maximum number of training images, a fixed sample")
        ] = 2000,
        validation: Annotated[int, Field(ge=1, le=10**6), Doc("maximum number of validation images")] = 1000,
    ) -> None:
        self.training, self.validation = training, validation

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, Task) or pl_module.uses_labels or trainer.sanity_checking:
            return
        data = data_of(trainer)
        with as_in_the_test(trainer):
            explainer = explainer_of(trainer, pl_module)

            def sampled(images: Prepared, count: int) -> tuple[Tensor, Tensor]:
                rows = np.sort(np.random.default_rng(0).permutation(len(images))[:count])
                features = torch.from_numpy(explainer.embeddings(images.images(rows)))
                return features, torch.from_numpy(images.labels[rows])

            known, labels = sampled(data.train, self.training)
            features, truth = sampled(data.val, self.validation)
        predicted = knn_predict(known, labels, features, num_classes=len(data.classes))
        pl_module.log("val/knn_accuracy", (predicted == truth).float().mean())
