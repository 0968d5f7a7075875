"""Muon for the hidden matrices, AdamW for the rest."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.models import PyramidVisionTransformer, SimpleCNN, SwinTransformer, ViT
from vitexp.training.muon import Muon, orthogonalized
from vitexp.training.parameter_groups import parameter_groups

OPTIONS: dict[str, Any] = {
    "lr": 0.01,
    "weight_decay": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "update_rms": 0.2,
    "betas": (0.9, 0.99),
    "eps": 1e-8,
    "fused": True,
}


def vit() -> ViT:
    torch.manual_seed(0)
    return ViT(image_size=16, num_classes=3, patch_size=8, dim=16, depth=2, num_heads=2, mlp_ratio=2, stem="shifted")


def muon(net: nn.Module, **options: Any) -> Muon:
    return Muon(parameter_groups(net), **{**OPTIONS, **options})


def train(net: nn.Module, *optimizers: torch.optim.Optimizer, steps: int, start: int = 0) -> dict[str, Tensor]:
    """Return the parameters after `steps` steps, each on its own images."""
    for step in range(start, start + steps):
        images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        F.cross_entropy(net(images), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
        for optimizer in optimizers:
            optimizer.step()
        net.zero_grad()
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def test_muon_trains_the_matrices_of_blocks_and_adamw_everything_else() -> None:
    optimizer = muon(vit())
    hidden = {name for group in optimizer.param_groups if group["hidden"] for name in group["param_names"]}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert hidden == {f"blocks.{block}.{layer}.weight" for block in (0, 1) for layer in layers}
    every = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(every) == sorted(name for name, _ in vit().named_parameters())
    spared = [group for group in optimizer.param_groups if group["weight_decay"] == 0]
    assert all(not group["hidden"] for group in spared)


@pytest.mark.parametrize("nesterov", [True, False])
def test_it_matches_torchs_muon_and_adamw(nesterov: bool) -> None:
    """torch.optim.Muon and AdamW train their own parameters; queries, keys and values are separate ones."""
    net = vit()
    split = {
        name: [nn.Parameter(part.clone()) for part in each.detach().chunk(3 if "qkv.weight" in name else 1)]
        for name, each in net.named_parameters()
    }
    common = {"lr": 0.01, "weight_decay": 0.1}
    hidden = [each for name, parts in split.items() for each in parts if "blocks" in name and each.ndim == 2]
    decayed = [each for name, parts in split.items() for each in parts if "blocks" not in name and each.ndim == 2]
    spared = [each for name, [each, *_] in split.items() if each.ndim != 2]
    reference = (
        torch.optim.Muon(hidden, **common, momentum=0.9, nesterov=nesterov, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([{"params": decayed}, {"params": spared, "weight_decay": 0.0}], **common, betas=(0.9, 0.99)),
    )
    optimizer = muon(net, nesterov=nesterov)
    for _ in range(4):
        for name, parameter in net.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            for part, gradient in zip(split[name], parameter.grad.chunk(len(split[name])), strict=True):
                part.grad = gradient.clone()
        for each in (optimizer, *reference):
            each.step()
    for name, parameter in net.named_parameters():
        moved, wanted = (now - dict(vit().named_parameters())[name] for now in (parameter, torch.cat([*split[name]])))
        # bfloat16 sums in another order if matrices are stacked
        torch.testing.assert_close(moved, wanted, rtol=0.02, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8)])
def test_the_update_is_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape) * torch.tensor([1e-4, 1.0, 1e4]).view(3, 1, 1)
    made = orthogonalized(matrices).float()
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.5
    assert values.max() < 1.3
    # the same singular vectors: U V^T of U S V^T
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    assert F.cosine_similarity(made.flatten(1), (u @ vh).flatten(1)).min() > 0.95


def test_a_matrix_without_gradient_is_unchanged() -> None:
    net = vit()
    net.blocks[0].mlp.fc1.weight.requires_grad_(False)
    before = net.blocks[0].mlp.fc1.weight.clone()
    train(net, muon(net), steps=1)
    assert torch.equal(net.blocks[0].mlp.fc1.weight, before)
    optimizer = muon(net := vit())
    optimizer.step()  # no gradients at all
    assert all(map(torch.equal, net.parameters(), vit().parameters()))


def test_each_group_has_its_own_learning_rate() -> None:
    """A schedule sets it."""
    net = vit()
    optimizer = muon(net)
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if group["hidden"] else 0.01
    after = train(net, optimizer, steps=1)
    for name, start in vit().named_parameters():
        assert torch.equal(after[name], start) == (start.ndim == 2 and name.startswith("blocks")), name


def test_it_resumes_from_its_state() -> None:
    whole = vit()
    wanted = train(whole, muon(whole), steps=5)
    first = vit()
    optimizer = muon(first)
    train(first, optimizer, steps=2)
    second = copy.deepcopy(first)
    again = muon(second)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    got = train(second, again, steps=3, start=2)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_a_net_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="optim=adamw"):
        muon(SimpleCNN(num_classes=3, image_size=16))


def test_in_networks_with_stages_it_trains_the_matrices_of_blocks_and_between_stages() -> None:
    swin = SwinTransformer(image_size=16, num_classes=3, dim=8, depths=(1, 1), num_heads=(2, 4))
    hidden = {name for group in muon(swin).param_groups if group["hidden"] for name in group["param_names"]}
    inside = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert hidden == {
        "layers.1.downsample.reduction.weight",
        *(f"layers.{stage}.blocks.0.{part}.weight" for stage in (0, 1) for part in inside),
    }
    sizes: dict[str, Any] = {"dims": (8,), "depths": (1,), "num_heads": (2,), "reductions": (2,), "mlp_ratios": (2.0,)}
    pvt = PyramidVisionTransformer(image_size=16, num_classes=3, **sizes)
    hidden = {name for group in muon(pvt).param_groups if group["hidden"] for name in group["param_names"]}
    inside = ("attn.q", "attn.kv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert hidden == {f"stages.0.blocks.0.{part}.weight" for part in inside}


def test_a_fused_key_value_weight_is_two_matrices() -> None:
    fused = nn.Parameter(torch.randn(8, 4))
    parts = [nn.Parameter(each.clone()) for each in fused.detach().chunk(2)]
    fused.grad = torch.randn(8, 4)
    for part, gradient in zip(parts, fused.grad.chunk(2), strict=True):
        part.grad = gradient.clone()
    named = [(f"blocks.0.{name}.weight", each) for name, each in zip("kv", parts, strict=True)]
    for group in ([("blocks.0.kv.weight", fused)], named):
        other = ("head.weight", nn.Parameter(torch.zeros(1)))
        Muon([{"params": [*group, other]}], **OPTIONS).step()
    torch.testing.assert_close(fused, torch.cat(parts))
