"""Which parameters are decayed, and which learn more slowly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vitexp.models import PyramidVisionTransformer, SimpleCNN, SwinTransformer, ViT
from vitexp.training.classification import Classifier
from vitexp.training.parameter_groups import parameter_groups
from vitexp.training.schedules import CosineWarmup


def swin() -> nn.Module:
    return SwinTransformer(image_size=16, num_classes=3, dim=8, depths=(1, 2), num_heads=(2, 4))


def pvt() -> nn.Module:
    sizes: dict[str, Any] = {"dims": (8, 16), "depths": (1, 2), "num_heads": (1, 2), "reductions": (2, 1)}
    return PyramidVisionTransformer(image_size=16, num_classes=3, mlp_ratios=(2.0, 2.0), **sizes)


def decay_by_name(groups: list[dict[str, Any]]) -> dict[str, float | None]:
    return {name: group.get("weight_decay") for group in groups for name, _ in group["params"]}


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


def test_undecayed_groups_have_no_decay_and_the_others_use_the_optimizers() -> None:
    net = ViT(image_size=16, num_classes=3, patch_size=8, dim=16, depth=1, num_heads=2)
    decayed, spared = parameter_groups(net)
    assert "weight_decay" not in decayed
    assert spared["weight_decay"] == 0.0


def test_frozen_parameters_are_left_out() -> None:
    net = ViT(image_size=16, num_classes=3, patch_size=8, dim=16, depth=1, num_heads=2)
    net.head.requires_grad_(False)
    kept = sum(len(group["params"]) for group in parameter_groups(net))
    assert kept == len(list(net.parameters())) - 2


def test_each_block_learns_more_slowly_than_the_one_above_it() -> None:
    net = ViT(image_size=16, num_classes=3, patch_size=8, dim=16, depth=3, num_heads=2, pool="seqpool", registers=1)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    groups = parameter_groups(net, layer_decay=0.5)
    scales = {names[id(each)]: group["lr_scale"] for group in groups for _, each in group["params"]}
    assert scales.keys() == set(names.values())
    for name, scale in scales.items():
        if name.startswith("blocks."):
            assert scale == 0.5 ** (3 - int(name.split(".")[1])), name
        else:
            lowest = name.startswith(("patch_embed", "pos_embed", "reg_token"))
            assert scale == (0.5**4 if lowest else 1.0), name
    assert [names[id(each)] for _, each in groups[0]["params"]] == ["seq_pool.score.weight", "head.weight"]
    assert groups[0]["lr_scale"] == 1.0
    plain = {
        names[id(each)]: group.get("weight_decay") for group in parameter_groups(net) for _, each in group["params"]
    }
    assert plain == {names[id(each)]: group.get("weight_decay") for group in groups for _, each in group["params"]}


@pytest.mark.parametrize("build", [swin, pvt])
def test_in_networks_with_stages_the_blocks_of_all_stages_count(build: Callable[[], nn.Module]) -> None:
    net = build()
    scales = {
        name: group["lr_scale"] for group in parameter_groups(net, layer_decay=0.5) for name, _ in group["params"]
    }
    assert scales.keys() == dict(net.named_parameters()).keys()
    stages = "layers" if build is swin else "stages"
    assert scales["patch_embed.proj.weight"] == scales["patch_embed.norm.bias"] == 0.5**4
    assert scales[f"{stages}.0.blocks.0.norm1.weight"] == 0.5**3
    assert scales[f"{stages}.1.blocks.0.norm1.weight"] == scales[f"{stages}.1.downsample.norm.bias"] == 0.5**2
    assert scales[f"{stages}.1.blocks.1.norm1.weight"] == 0.5
    assert scales["head.fc.weight" if build is swin else "head.weight"] == 1.0
    if build is pvt:
        assert [scales[f"stages.{stage}.norm.weight"] for stage in (0, 1)] == [0.5**3, 0.5]


def test_relative_positions_are_not_decayed() -> None:
    decayed, spared = ({name for name, _ in group["params"]} for group in parameter_groups(swin()))
    assert "layers.1.blocks.1.attn.relative_position_bias_table" in spared
    assert {"layers.1.downsample.reduction.weight", "layers.0.blocks.0.attn.qkv.weight"} <= decayed
    assert all(name.endswith("weight") for name in decayed)


def test_layer_decay_needs_blocks() -> None:
    with pytest.raises(ValueError, match="needs blocks, which this model does not have"):
        parameter_groups(SimpleCNN(num_classes=3, image_size=16), layer_decay=0.5)


def test_learning_rate_ratios_of_layers_hold_throughout_the_schedule() -> None:
    net = ViT(image_size=16, num_classes=3, patch_size=8, dim=16, depth=2, num_heads=2)
    module = Classifier(
        net=net,
        num_classes=3,
        augment=nn.Identity(),
        optimizer=partial(torch.optim.AdamW, lr=0.8),
        schedule=CosineWarmup(warmup_epochs=1, min_lr=0.08),
        seed=0,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        layer_decay=0.5,
    )
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        estimated_stepping_batches=8,
        num_training_batches=2,
        accumulate_grad_batches=1,
        fit_loop=SimpleNamespace(setup_data=lambda: None),
    )
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    seen = []
    for _ in range(9):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert [rates[0] for rates in seen[:3]] == pytest.approx([0.4, 0.8, 0.8])
    assert seen[8][0] == pytest.approx(0.08)
    for rates in seen:
        assert sorted({round(rate / rates[0], 9) for rate in rates}) == [0.125, 0.25, 0.5, 1.0]
