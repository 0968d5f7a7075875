"""Distillation: learning from a trained net in addition to the labels (Touvron et al. 2021, DeiT, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vitexp.models.trained_net import TrainedNet

Kind = Literal["hard", "soft"]

# The teacher's share of the loss in the paper: a half in equation 3, lambda in equation 2.
TEACHER_WEIGHTS: Mapping[Kind, float] = {"hard": 0.5, "soft": 0.1}


class Distillation:
    """A loss with a teacher's share.

    Not a module, so that no checkpoint, optimizer, average of weights or other process includes the teacher, which is
    frozen and in evaluation mode. Move it with `to`.
    kind: "hard" uses the teacher's most likely class as the label, without smoothing; "soft" uses its probabilities,
    with both nets' logits divided by `temperature`. weight: the teacher's share; None for the paper's.
    """

    def __init__(
        self, *, teacher: TrainedNet, kind: Kind = "hard", weight: float | None = None, temperature: float = 3.0
    ) -> None:
        self.net = teacher.net.eval().requires_grad_(False)
        self.image_size, self.mean, self.std = teacher.image_size, teacher.mean, teacher.std
        self.kind, self.temperature = kind, temperature
        self.weight = TEACHER_WEIGHTS[kind] if weight is None else weight

    def to(self, device: torch.device) -> None:
        self.net.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)

    def __deepcopy__(self, memo: Any) -> Distillation:
        return self  # weight averaging copies the student, which does not need a teacher of its own

    def __call__(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Return (1 - weight) * loss + weight * loss against the teacher.

        loss: the loss against the labels. logits: the student's, [B, C], to compare with the teacher's. images: float
        [B, 3, S, S] in [0, 1], augmented and mixed as the student sees them; resized for the teacher.
        """
        return (1.0 - self.weight) * loss + self.weight * self._of_teacher(logits.float(), self.teacher_logits(images))

    @torch.no_grad()
    def teacher_logits(self, images: Tensor) -> Tensor:
        """Return the teacher's logits, float32 [B, C], for images float [B, 3, S, S] in [0, 1] of any S."""
        if images.shape[-1] != self.image_size:
            images = F.interpolate(images, size=(self.image_size,) * 2, mode="bilinear", antialias=True)
        normalized = (images - self.mean.view(3, 1, 1)) / self.std.view(3, 1, 1)
        return self.net(normalized.contiguous(memory_format=torch.channels_last)).float()  # type: ignore[no-any-return]

    def _of_teacher(self, logits: Tensor, teacher: Tensor) -> Tensor:
        if self.kind == "hard":
            return F.cross_entropy(logits, teacher.argmax(dim=1))
        student, teacher = (F.log_softmax(each / self.temperature, dim=1) for each in (logits, teacher))
        return self.temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
