"""Learning from a teacher: the losses of DeiT, and what the teacher sees."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from vitexp.models import ViT
from vitexp.models.trained_net import TrainedNet
from vitexp.training.classification import Classifier
from vitexp.training.distillation import Distillation, Kind
from vitexp.training.losses import CrossEntropy
from vitexp.training.mixing import Mixing
from vitexp.training.schedules import Constant


class Recorder(nn.Module):
    """A linear layer that records every batch it receives."""

    def __init__(self, *, pixels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * pixels**2, classes)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.linear(images.flatten(1))  # type: ignore[no-any-return]


def trained(net: nn.Module, *, pixels: int = 4, mean: float = 0.0, std: float = 1.0) -> TrainedNet:
    return TrainedNet(
        net=net, classes=["a", "b", "c"], image_size=pixels, mean=torch.full((3,), mean), std=torch.full((3,), std)
    )


class Fixed(nn.Module):
    """A network that returns the same logits for any input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


STUDENT, TEACHER = [[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]], [[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]]


def of_teacher(kind: Kind, *, weight: float | None = None, temperature: float = 3.0) -> tuple[Tensor, Tensor]:
    """Return the loss, with 5 for the labels, and the student's logits."""
    distillation = Distillation(
        teacher=trained(Fixed(torch.tensor(TEACHER))), kind=kind, weight=weight, temperature=temperature
    )
    logits = torch.tensor(STUDENT, requires_grad=True)
    return distillation(torch.tensor(5.0), logits, torch.zeros(2, 3, 4, 4)), logits


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(each / temperature) for each in logits]
    return [each / sum(powers) for each in powers]


def test_the_hard_loss_averages_the_losses_of_the_labels_and_of_the_teachers_class() -> None:
    chosen = [-math.log(softmax(STUDENT[0])[0]), -math.log(softmax(STUDENT[1])[1])]  # the largest of TEACHER
    assert of_teacher("hard")[0].item() == pytest.approx(0.5 * 5 + 0.5 * sum(chosen) / 2)


@pytest.mark.parametrize("temperature", [3.0, 1.0])
def test_the_soft_loss_is_the_divergence_times_the_squared_temperature(temperature: float) -> None:
    divergence = 0.0
    for student, teacher in zip(STUDENT, TEACHER, strict=True):
        pairs = zip(softmax(student, temperature), softmax(teacher, temperature), strict=True)
        divergence += sum(theirs * math.log(theirs / mine) for mine, theirs in pairs) / 2
    made = of_teacher("soft", temperature=temperature)[0].item()
    assert made == pytest.approx(0.9 * 5 + 0.1 * temperature**2 * divergence)
    made = of_teacher("soft", weight=1.0, temperature=temperature)[0].item()
    assert made == pytest.approx(temperature**2 * divergence, rel=1e-4)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_only_the_student_gets_a_gradient(kind: Kind) -> None:
    teacher = Fixed(torch.tensor(TEACHER))
    distillation = Distillation(teacher=trained(teacher), kind=kind, weight=None, temperature=3.0)
    logits = torch.tensor(STUDENT, requires_grad=True)
    distillation(torch.tensor(5.0), logits, torch.zeros(2, 3, 4, 4)).backward()
    assert logits.grad is not None and logits.grad.abs().min() > 0
    assert teacher.logits.grad is None and not teacher.logits.requires_grad


# ---- the training step


MEAN, STD = 0.25, 0.5  # of the student


def classifier(net: nn.Module, teacher: nn.Module, **options: Any) -> Classifier:
    return Classifier(
        net=net,
        num_classes=3,
        augment=nn.Identity(),
        mixing=Mixing(mixup_alpha=1.0, cutmix_alpha=1.0),
        optimizer=partial(SGD, lr=0.1),
        schedule=Constant(warmup_epochs=0),
        seed=0,
        loss=CrossEntropy(label_smoothing=0.0),
        mean=np.full(3, MEAN, np.float32),
        std=np.full(3, STD, np.float32),
        distillation=Distillation(
            teacher=trained(teacher, mean=0.5, std=0.1, **options), kind="hard", weight=None, temperature=3.0
        ),
    )


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen.append(float(outputs["loss"]))


def fit(module: Classifier) -> list[float]:
    losses = Losses()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[losses],
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 8, 8, 3), generator=generator, dtype=torch.uint8)
    trainer.fit(module, DataLoader([(images, torch.tensor([0, 1, 2] * 2))] * 3, batch_size=None))  # type: ignore[arg-type]
    return losses.seen


def test_the_teacher_sees_the_students_mixed_images_in_its_own_normalization() -> None:
    student, teacher = Recorder(pixels=8, classes=3), Recorder(pixels=8, classes=3)
    fit(classifier(student, teacher, pixels=8))
    assert len(teacher.seen) == len(student.seen) == 3
    for mine, theirs in zip(student.seen, teacher.seen, strict=True):
        torch.testing.assert_close((mine * STD + MEAN - 0.5) / 0.1, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.equal(student.seen[0], student.seen[1])  # each batch is mixed differently


def test_a_teacher_of_another_image_size_sees_resized_images() -> None:
    teacher = Recorder(pixels=5, classes=3)
    fit(classifier(Recorder(pixels=8, classes=3), teacher, pixels=5))
    assert [tuple(images.shape) for images in teacher.seen] == [(6, 3, 5, 5)] * 3


def test_only_the_loss_holds_the_teacher() -> None:
    teacher = Recorder(pixels=8, classes=3).train()
    before = copy.deepcopy(teacher.state_dict())
    module = classifier(Recorder(pixels=8, classes=3), teacher, pixels=8)
    assert [name for name, _ in module.named_parameters()] == ["net.linear.weight", "net.linear.bias"]
    assert set(module.state_dict()) == {"net.linear.weight", "net.linear.bias"}
    assert module.distillation is not None
    assert copy.deepcopy(module).distillation is module.distillation  # as weight averaging does
    fit(module)
    assert not teacher.training and all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_the_labels_teach_the_class_token_and_the_teacher_the_distillation_token() -> None:
    torch.manual_seed(0)
    net = ViT(
        image_size=8, num_classes=3, patch_size=4, dim=8, depth=1, num_heads=1, distillation_token=True, init="mimetic"
    )
    teacher = Recorder(pixels=8, classes=3)
    module = classifier(net, teacher, pixels=8)
    images, targets = torch.randn(6, 3, 8, 8), torch.eye(3).repeat(2, 1)
    loss, right = module.learn(images, targets)
    of_class, of_teacher = net(images, separate=True)
    choice = teacher((images * STD + MEAN - 0.5) / 0.1).argmax(dim=1)
    cross_entropy = nn.functional.cross_entropy
    torch.testing.assert_close(loss, 0.5 * cross_entropy(of_class, targets) + 0.5 * cross_entropy(of_teacher, choice))
    assert right == (net.eval()(images).argmax(dim=1) == targets.argmax(dim=1)).sum()
