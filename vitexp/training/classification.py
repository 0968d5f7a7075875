"""The classification task: what happens to a batch between uint8 images and the loss, and the test metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

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
from vitexp.training.losses import CrossEntropy
from vitexp.training.mixing import Mixing
from vitexp.training.task import Batch, Task, hashed


class Classifier(Task):
    """A net from images, float [B, 3, S, S], to logits [B, num_classes], trained with labels.

    After each validation and test, `predictions` holds the probabilities, float [N, C], and the labels, int64 [N], of
    the whole set in order, in every process. The metrics are computed from them together, so that they do not
    depend on the number of processes. `loss` among the metrics is the cross-entropy, whatever the training loss.

    Args:
        loss: training loss of logits float32 [B, C] and soft targets float32 [B, C]; default CrossEntropy().
        mixing: mixup and CutMix; default: off.
        image_sizes: pixels per side; each training batch draws one, the same in all processes. None: data.image_size.
        distillation: adds a teacher's share to the loss. If the net has a distillation token, only that one learns
            from the teacher.
        parts: see Task.
    """

    metrics: ClassVar[tuple[str, ...]] = tuple(METRICS)
    monitor: ClassVar[str] = "val/accuracy"
    uses_labels: ClassVar[bool] = True
    train_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    has_predictions: ClassVar[bool] = True

    predictions: Batch

    def __init__(
        self,
        *,
        num_classes: int,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        mixing: Mixing | None = None,
        image_sizes: Sequence[int] | None = None,
        distillation: Distillation | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.num_classes = num_classes
        self.loss, self.mixing, self.image_sizes = loss or CrossEntropy(), mixing or Mixing(), image_sizes
        self.distillation = distillation

    def compile_net(self, *, batch_size: int) -> None:
        super().compile_net(batch_size=batch_size)
        if self.distillation is not None:
            self.distillation.net.compile(dynamic=False)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.distillation is not None:
            self.distillation.to(self.device)

    def training_batch(self, batch: Batch, batch_index: int) -> Batch:
        """Return the batch as the net sees it: images float [B, 3, S, S], augmented and mixed, and targets [B, C]."""
        images, labels = super().training_batch(batch, batch_index)
        targets = F.one_hot(labels, self.num_classes).to(images.dtype)
        return self.mixing(images, targets, progress=self.global_step / self.total_steps)

    def augmented(self, images: Tensor, batch_index: int) -> Tensor:
        """Augment float images [B, 3, S, S] in [0, 1] and resize them to the size drawn for this batch."""
        images = super().augmented(images, batch_index)
        if self.image_sizes is None:
            return images
        size = self.image_sizes[hashed(self.seed, self.current_epoch, batch_index) % len(self.image_sizes)]
        if size == images.shape[-1]:
            return images
        return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)

    def image_changes(self) -> list[str]:
        mixed = {"mixup": self.mixing.mixup_alpha, "CutMix": self.mixing.cutmix_alpha}
        return [*super().image_changes(), *(name for name, alpha in mixed.items() if alpha and self.mixing.mix_prob)]

    def loss_changes(self) -> list[str]:
        changes = [] if isinstance(self.loss, CrossEntropy) else [type(self.loss).__name__]
        if smoothing := getattr(self.loss, "label_smoothing", 0):
            changes.append(f"label smoothing {smoothing:g}")
        if getattr(self.loss, "class_weights", None) is not None:
            changes.append("class weights")
        return changes if self.distillation is None else [*changes, "distillation"]

    def learn(self, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return the loss and the number of images whose largest logit is that of their largest target."""
        two_tokens = self.distillation is not None and getattr(self.net, "distillation_token", False)
        of_labels, of_teacher = self.apply_net(images, separate=True) if two_tokens else [self.apply_net(images)] * 2
        loss, logits = self.loss(of_labels.float(), targets), of_labels
        if self.distillation is not None:
            unit = images * self.std + self.mean  # the same images, mixed ones included, in the range all nets share
            loss, logits = self.distillation(loss, of_teacher, unit), (of_labels + of_teacher) / 2
        return loss, (logits.detach().argmax(dim=1) == targets.argmax(dim=1)).sum()

    def measure(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return probabilities [B, C], labels [B] and cross-entropies [B]."""
        logits = self.apply_net(images).float()
        return logits.softmax(dim=1), labels, F.cross_entropy(logits, labels, reduction="none")

    def summarize(self, *measured: Tensor) -> dict[str, Tensor]:
        probabilities, labels, losses = measured
        self.predictions = probabilities, labels
        return {**classification_metrics(probabilities, labels), "loss": losses.mean()}


def classification_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the metrics of result.json, except the loss. probabilities: [N, C] of a whole set; labels: int64 [N].

    Macro means are those of scikit-learn: they weight classes equally and skip a class that neither occurs nor is
    predicted. A class that occurs but is never predicted has the precision 0, one that is predicted but does not occur
    the recall 0, and either the F1 0. (balanced_accuracy_score differs from recall_macro in skipping the latter.)
    f1_weighted weights classes by their images. ece is the expected calibration error over 15 bins (Guo et al. 2017).
    Top-5 accuracy needs more than five classes.
    """
    both, classes = (probabilities, labels), probabilities.shape[1]
    top5 = {"accuracy_top5": multiclass_accuracy(*both, classes, average="micro", top_k=5)} if classes > 5 else {}
    return {
        "accuracy": multiclass_accuracy(*both, classes, average="micro"),
        **top5,
        "precision_macro": multiclass_precision(*both, classes, average="macro"),
        "recall_macro": multiclass_recall(*both, classes, average="macro"),
        "f1_macro": multiclass_f1_score(*both, classes, average="macro"),
        "f1_weighted": multiclass_f1_score(*both, classes, average="weighted"),
        "ece": multiclass_calibration_error(*both, classes, n_bins=15),
    }
