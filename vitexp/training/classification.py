"""The training step: what happens to a batch on the device, from uint8 images to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from vitexp.metrics import METRICS
from vitexp.training.distillation import Distillation
from vitexp.training.mixing import Mixing
from vitexp.training.task import Batch, ImageTraining, hashed, seed_draws, to_unit_range


class Classifier(ImageTraining):
    """Trains and measures a net that turns images, float [B, 3, S, S], into logits, [B, num_classes].

    image_sizes: in pixels, of which each training batch draws one, the same in all processes; None: as they come.
    distillation: the teacher's share in the loss; a distillation token of the net, if it has one, learns from it alone.
    After a validation or test epoch `predictions` holds its probabilities, float [N, C], and labels, int64 [N], of the
    whole set in its order, in every process; metrics are taken of them at once, so that they do not depend on how many
    processes shared the images. The other arguments are those of ImageTraining.
    """

    metrics = tuple(METRICS)
    epoch_sums = ("loss_epoch", "accuracy")
    predictions: Batch

    def __init__(
        self,
        *,
        num_classes: int,
        mixing: Mixing,
        label_smoothing: float,
        image_sizes: Sequence[int] | None = None,
        distillation: Distillation | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.mixing, self.label_smoothing, self.image_sizes = mixing, label_smoothing, image_sizes
        self.distillation = distillation

    def compile_net(self, *, batch_size: int) -> None:
        super().compile_net(batch_size=batch_size)
        if self.distillation is not None:
            self.distillation.net.compile(dynamic=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [B, num_classes], of uint8 images, [B, S, S, 3]."""
        return self._logits(self.prepared(images))

    def _logits(self, images: Tensor, **options: bool) -> Tensor:
        # The layout in which convolutions are fastest: simple_cnn trains 1.7 times as fast with it.
        return cast(Tensor, self.net(images.contiguous(memory_format=torch.channels_last), **options))

    def training_batch(self, batch: Batch, batch_index: int) -> tuple[Tensor, Tensor]:
        """The batch as the net sees it: images float [B, 3, S, S], augmented, normalized and mixed; targets [B, C]."""
        seed_draws(self.device, self.seed, self.current_epoch, batch_index, self.global_rank)
        images, labels = batch
        images = self.normalize(self._resized(self.augment(to_unit_range(images)), batch_index))
        return self.mixing(images, labels, progress=self.global_step / self.total_steps)

    def _resized(self, images: Tensor, batch_index: int) -> Tensor:
        """float [B, 3, S, S] at the size that this batch draws."""
        if self.image_sizes is None:
            return images
        size = self.image_sizes[hashed(self.seed, self.current_epoch, batch_index) % len(self.image_sizes)]
        if size == images.shape[-1]:
            return images
        return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)

    def on_train_start(self) -> None:
        if self.distillation is not None:
            self.distillation.to(self.device)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        images, targets = self.training_batch(batch, batch_index)
        logits, loss = self._learn(images, targets)
        right = (logits.detach().argmax(dim=1) == targets.argmax(dim=1)).sum()
        self.train_loss = loss.detach()  # Lightning hands on a share of it where gradients are accumulated
        self.train_sums += torch.stack([self.train_loss * len(targets), right, torch.full_like(right, len(targets))])
        return loss

    def _learn(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, [B, C], and the loss, of a batch that is ready for the net."""
        two_tokens = self.distillation is not None and getattr(self.net, "distillation_token", False)
        of_labels, of_teacher = self._logits(images, separate=True) if two_tokens else [self._logits(images)] * 2
        loss = F.cross_entropy(of_labels.float(), targets, label_smoothing=self.label_smoothing)
        if self.distillation is None:
            return of_labels, loss
        unit = images * self.std + self.mean  # the very images, also mixed ones, in the range that all nets share
        return (of_labels + of_teacher) / 2, self.distillation(loss, of_teacher, unit)

    def _measure(self, batch: Batch) -> None:
        """Keep probabilities, labels and losses of a batch."""
        images, labels = batch
        logits = self(self._filled(images))[: len(images)].float()
        losses = F.cross_entropy(logits, labels, reduction="none")
        self._measured.append((logits.softmax(dim=1), labels, losses))

    def _log_measured(self, part: str) -> None:
        probabilities, labels, losses = self._all_measured()
        self.predictions = probabilities, labels
        measured = {**classification_metrics(probabilities, labels), "loss": losses.mean()}
        self.log_dict({f"{part}/{name}": value for name, value in measured.items()})


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
