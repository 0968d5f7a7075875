"""Temperature scaling of logits with a known temperature, and the bins against torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitexp.evaluate.calibration import BINS, calibrated, fit_temperature, reliability
from vitexp.training.classification import classification_metrics


def sampled(temperature: float, *, images: int = 20_000) -> tuple[Tensor, Tensor]:
    """Logits whose softmax at `temperature` is exactly the probability of each label."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(images, 7, generator=generator)
    labels = torch.multinomial((logits / temperature).softmax(dim=1), 1, generator=generator).squeeze(1)
    return logits, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_known_temperature_is_found_and_calibrates(temperature: float) -> None:
    logits, labels = sampled(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    assert calibrated(logits, labels, found)["ece"] < 0.01


def test_no_other_temperature_has_a_lower_loss() -> None:
    logits, labels = sampled(2.0, images=500)
    found = fit_temperature(logits, labels)
    best = calibrated(logits, labels, found)["loss"]
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert float(F.cross_entropy(logits / (found * factor), labels)) > best


def test_the_temperature_is_bounded() -> None:
    logits = torch.eye(3)
    assert fit_temperature(logits, torch.arange(3)) == pytest.approx(0.01)
    assert fit_temperature(logits, torch.tensor([1, 2, 0])) == pytest.approx(100)


def test_the_bins_give_the_ece_of_result_json() -> None:
    logits, labels = sampled(2.5, images=3000)
    probabilities = logits.softmax(dim=1)
    found = reliability(probabilities, labels)
    assert found.counts.sum() == 3000
    assert found.ece == pytest.approx(float(classification_metrics(probabilities, labels)["ece"]), abs=1e-5)
    sure = reliability(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))  # the upper edge belongs to the last bin
    assert sure.counts.tolist() == [0] * (BINS - 1) + [1]
    assert sure.ece == 0
    assert sure.as_json()[0] == {"from": 0.0, "to": 0.0667, "images": 0, "accuracy": None, "confidence": None}
