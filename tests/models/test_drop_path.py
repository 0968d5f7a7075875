from __future__ import annotations

import pytest
import torch

from vitexp.models import ViT
from vitexp.models.block import DropPath, drop_path_rates


def test_rates_rise_linearly_from_zero_to_the_maximum() -> None:
    assert drop_path_rates(maximum=0.3, depth=4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(maximum=0.3, depth=1) == [0.0]
    model = ViT(image_size=8, num_classes=2, dim=12, depth=4, num_heads=1, drop_path=0.3)
    rates = [getattr(block.drop_path, "rate", 0.0) for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_whole_samples_are_dropped_and_the_mean_is_kept() -> None:
    torch.manual_seed(0)
    out = DropPath(rate=0.25).train()(torch.ones(20_000, 3, 2))
    values = out.flatten(1)
    assert torch.equal(values.amin(dim=1), values.amax(dim=1))  # one draw per sample
    assert set(values[:, 0].tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    # Standard errors: sqrt(0.25 * 0.75 / 20000) = 0.0031 of the fraction, 0.0031 / 0.75 = 0.0041 of the mean.
    assert (values[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.015)
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)


def test_it_is_the_identity_in_evaluation_and_at_rate_zero() -> None:
    x = torch.randn(8, 4)
    assert torch.equal(DropPath(rate=0.9).eval()(x), x)
    assert torch.equal(DropPath(rate=0.0).train()(x), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_is_at_least_zero_and_below_one(rate: float) -> None:
    with pytest.raises(ValueError, match=r"drop_path=.* must be at least 0 and below 1"):
        DropPath(rate=rate)
