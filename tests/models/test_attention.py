from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitexp.models import Attention


@pytest.mark.parametrize("qk_norm", [False, True])
def test_fused_and_explicit_attention_agree(qk_norm: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(dim=24, num_heads=3, qk_norm=qk_norm)
    torch.nn.init.normal_(attention.qkv.weight, std=0.5)  # peaked weights, to reveal a wrong scale
    x = torch.randn(2, 9, 24)
    explicit, weights = attention.forward_with_weights(x)
    torch.testing.assert_close(attention(x), explicit, rtol=0, atol=1e-5)
    assert weights.max() > 0.5


def test_weights_follow_the_definition() -> None:
    torch.manual_seed(0)
    attention = Attention(dim=8, num_heads=2)
    x = torch.randn(1, 5, 8)
    q, k, _ = (t.view(5, 2, 4) for t in attention.qkv(x)[0].chunk(3, dim=-1))
    expected = torch.stack([torch.softmax(q[:, head] @ k[:, head].T / 2.0, dim=-1) for head in range(2)])
    torch.testing.assert_close(attention.forward_with_weights(x)[1][0], expected)


def count_fused_calls(attention: Attention, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    fused = torch.nn.functional.scaled_dot_product_attention
    calls: list[int] = []

    def counted(*args: Tensor, **options: float) -> Tensor:
        calls.append(1)
        return fused(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    attention(x)
    return len(calls)


def test_float32_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_fused_calls(Attention(dim=24, num_heads=3), torch.randn(2, 9, 24), monkeypatch) == 1


def test_bfloat16_autocast_on_the_cpu_is_explicit_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention, x = Attention(dim=24, num_heads=3), torch.randn(2, 9, 24)
    exact = attention(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert count_fused_calls(attention, x, monkeypatch) == 0
        rounded = attention(x)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.01)


def test_in_locality_attention_no_token_attends_to_itself_and_the_temperature_is_learned() -> None:
    torch.manual_seed(0)
    attention = Attention(dim=24, num_heads=3, lsa=True)
    out, weights = attention.forward_with_weights(torch.randn(2, 9, 24))
    assert weights.diagonal(dim1=-2, dim2=-1).abs().max() == 0.0
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 9))
    temperature = attention.scale
    assert isinstance(temperature, torch.nn.Parameter)
    torch.testing.assert_close(temperature.detach(), torch.full((3, 1, 1), 8**-0.5))
    out.square().sum().backward()
    assert temperature.grad is not None and temperature.grad.abs().min() > 0


def test_attention_dropout_acts_in_training_but_not_on_the_returned_weights() -> None:
    torch.manual_seed(0)
    attention = Attention(dim=24, num_heads=3, attention_dropout=0.5).train()
    x = torch.randn(2, 9, 24)
    first, weights = attention.forward_with_weights(x)
    second, again = attention.forward_with_weights(x)
    assert not torch.equal(first, second)
    torch.testing.assert_close(weights, again, rtol=0, atol=0)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    torch.testing.assert_close(attention(x), attention(x), rtol=0, atol=0)


def test_the_number_of_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="num_heads=5 does not divide dim=24"):
        Attention(dim=24, num_heads=5)
