"""The losses against their definitions, and as options of a run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conftest import composed, result, tiny_run
from vitexp.errors import ConfigError
from vitexp.runs.tryout import try_out
from vitexp.training.losses import BinaryCrossEntropy, ClassificationLoss, CrossEntropy, Focal, balanced_weights


def batch() -> tuple[Tensor, Tensor]:
    """Return logits and mixed targets of 4 images and 3 classes."""
    generator = torch.Generator().manual_seed(0)
    one_hot = torch.eye(3)[[0, 1, 2, 1]]
    return torch.randn(4, 3, generator=generator), 0.7 * one_hot + 0.3 * one_hot[[1, 2, 3, 0]]


def test_the_default_equals_torchs_cross_entropy_bit_for_bit() -> None:
    logits, targets = batch()
    assert torch.equal(CrossEntropy()(logits, targets), F.cross_entropy(logits, targets, label_smoothing=0.1))


@pytest.mark.parametrize("loss", [CrossEntropy, Focal, BinaryCrossEntropy])
def test_a_weighted_loss_is_the_weighted_sum_over_the_number_of_images(loss: type[ClassificationLoss]) -> None:
    logits, targets = batch()
    values = [
        float(loss(label_smoothing=0.2, class_weights=weights)(logits, targets))
        for weights in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [2.0, 0.5, 1.0], None)
    ]
    *parts, weighted, plain = values
    assert weighted == pytest.approx(2 * parts[0] + 0.5 * parts[1] + parts[2], rel=1e-5)
    assert sum(parts) == pytest.approx(plain, rel=1e-5)


def test_focal_is_cross_entropy_without_gamma_and_smaller_with_it() -> None:
    logits, targets = batch()
    plain = CrossEntropy(label_smoothing=0.1)(logits, targets)
    assert Focal(gamma=0.0, label_smoothing=0.1)(logits, targets) == pytest.approx(float(plain))
    one = Focal(gamma=2.0)(torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[1.0, 0.0]]))  # p = 3/4
    assert float(one) == pytest.approx((1 / 4) ** 2 * -math.log(3 / 4), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_has_finite_gradients_where_the_net_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    Focal(gamma=gamma)(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]])).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_balanced_weights_give_every_class_the_same_share() -> None:
    labels = [0] * 6 + [1] * 2 + [2]
    weights = balanced_weights(labels, 4)
    assert weights == pytest.approx([9 / 24, 9 / 8, 9 / 4, 9 / 4])


class Margin(nn.Module):
    """A custom loss."""

    def __init__(self, *, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (self.margin - logits * (2 * targets - 1)).clamp(min=0).mean()


MARGIN = "tests.training.test_losses.Margin"


@pytest.mark.parametrize(
    "options",
    [
        ["loss=focal", "loss.gamma=1"],
        ["loss=bce", "loss.class_weights=balanced", "training.mixup_alpha=0.2"],
        ["~loss", "+loss._target_=torch.nn.CrossEntropyLoss", "+loss.label_smoothing=0.2"],
        ["~loss", f"+loss._target_={MARGIN}", "+loss.margin=1.0"],
    ],
)
def test_a_run_trains_with_any_loss(tmp_path: Path, options: list[str]) -> None:
    assert result(tiny_run(tmp_path, "callbacks=none", *options))["status"] == "completed"


def test_a_wrong_number_of_class_weights_gives_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^loss\.class_weights has 2 weights, but signs has 43 classes; give one"):
        tiny_run(tmp_path, "callbacks=none", "loss.class_weights=[1,2]")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("torch.nn.NLLLoss", r"torch\.nn\.NLLLoss failed .*map logits \[B, C\] and soft targets \[B, C\]"),
        ("torch.nn.Identity", "torch.nn.Identity failed .*map logits"),
        ("torch.nn.Cross", "cannot be imported"),
    ],
)
def test_anything_but_a_loss_is_refused_before_data_are_read(target: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        try_out(composed("model=vit_tiny", "~loss", f"+loss._target_={target}"))
