"""Which parameters are decayed."""

from __future__ import annotations

from vitexp.models import ViT
from vitexp.training.parameter_groups import parameter_groups


def test_only_matrices_and_kernels_decay() -> None:
    net = ViT(image_size=16, num_classes=3, patch_size=8, dim=16, depth=1, num_heads=2, registers=2, lsa=True)
    decayed, spared = ({name for name, _ in group["params"]} for group in parameter_groups(net))
    assert decayed | spared == {name for name, _ in net.named_parameters()}
    assert not decayed & spared
    assert "blocks.0.attn.qkv.weight" in decayed
    assert "patch_embed.proj.weight" in decayed
    assert {
        "cls_token",
        "pos_embed",
        "reg_token",
        "norm.weight",
        "blocks.0.attn.qkv.bias",
        "blocks.0.attn.scale",
    } <= spared
    assert all(name.endswith("weight") for name in decayed)


def test_the_spared_have_no_decay_and_the_others_the_optimizers() -> None:
    net = ViT(image_size=16, num_classes=3, patch_size=8, dim=16, depth=1, num_heads=2)
    decayed, spared = parameter_groups(net)
    assert "weight_decay" not in decayed
    assert spared["weight_decay"] == 0.0


def test_frozen_parameters_are_left_out() -> None:
    net = ViT(image_size=16, num_classes=3, patch_size=8, dim=16, depth=1, num_heads=2)
    net.head.requires_grad_(False)
    kept = sum(len(group["params"]) for group in parameter_groups(net))
    assert kept == len(list(net.parameters())) - 2
