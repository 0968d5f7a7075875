"""The depthwise convolution over the patch tokens, and its place in the MLP."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitexp.models import ViT
from vitexp.models.block import TokenConv


def by_hand(conv: TokenConv, patches: Tensor, side: int) -> Tensor:
    """Return the convolution of (B, side * side, dim) as a sum over neighbors."""
    made = conv.bias.expand_as(patches).clone()  # type: ignore[union-attr]
    for row in range(side):
        for column in range(side):
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    if 0 <= row + i < side and 0 <= column + j < side:
                        neighbour = patches[:, (row + i) * side + column + j]
                        made[:, row * side + column] += neighbour * conv.weight[:, 0, 1 + i, 1 + j]
    return made


@pytest.mark.parametrize("prefix_tokens", [0, 1, 3])
def test_each_patch_sees_its_neighbors_and_other_tokens_are_unchanged(prefix_tokens: int) -> None:
    torch.manual_seed(0)
    conv = TokenConv(dim=6, prefix_tokens=prefix_tokens)
    tokens = torch.randn(2, prefix_tokens + 16, 6)
    made = conv(tokens)
    assert torch.equal(made[:, :prefix_tokens], tokens[:, :prefix_tokens])
    torch.testing.assert_close(made[:, prefix_tokens:], by_hand(conv, tokens[:, prefix_tokens:], 4))


@pytest.mark.parametrize("pool", ["cls", "gap"])
def test_weights_contain_it_only_when_on_and_in_each_block_that_is_read(pool: str) -> None:
    shape = {"image_size": 16, "num_classes": 3, "dim": 24, "depth": 3, "num_heads": 3}
    plain, with_conv = (
        set(ViT(**shape, pool=pool, mlp_conv=on).state_dict())  # type: ignore[arg-type]
        for on in (False, True)
    )
    blocks = range(2 if pool == "cls" else 3)
    assert not any("conv" in name for name in plain)
    assert with_conv - plain == {f"blocks.{block}.mlp.conv.{name}" for block in blocks for name in ("weight", "bias")}


def test_an_identity_kernel_changes_nothing() -> None:
    """With an identity kernel, the net computes the same as without the convolution."""
    torch.manual_seed(0)
    shape = {"image_size": 16, "num_classes": 3, "dim": 24, "depth": 2, "num_heads": 3, "registers": 2}
    net, plain = (ViT(**shape, mlp_conv=on).eval() for on in (True, False))  # type: ignore[arg-type]
    missing = net.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["blocks.0.mlp.conv.weight", "blocks.0.mlp.conv.bias"]
    torch.nn.init.dirac_(net.blocks[0].mlp.conv.weight, groups=96)
    torch.nn.init.zeros_(net.blocks[0].mlp.conv.bias)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(images), plain(images))
