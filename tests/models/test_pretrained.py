"""Published weights give the same output in our ViT as in their original net."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitexp.models import ViT
from vitexp.models.checkpoint_names import publisher_of
from vitexp.models.layouts import heads_of, in_our_names
from vitexp.models.pretrained import Loaded, Misfit, load_pretrained

pytest.importorskip("timm")

import timm.models.deit as timm_deit

from tests.models.published import CLASSES, SIZES, TIMMS_SIZES, as_google, disturbed, of_timm, of_torchvision


def ours(**options: Any) -> ViT:
    torch.manual_seed(3)
    return ViT(**{**SIZES, "num_classes": CLASSES, **options}).eval()


def load(net: ViT, tensors: dict[str, Tensor], *, keep_head: bool = True, **known: Any) -> Loaded:
    publisher = publisher_of(tensors)
    assert publisher is not None
    return load_pretrained(net, in_our_names(tensors, publisher), keep_head=keep_head, known=known)


def images(size: int = 32) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(2))


def assert_same(net: ViT, reference: nn.Module) -> None:
    with torch.no_grad():
        torch.testing.assert_close(net(images()), reference(images()), rtol=0, atol=1e-5)


TIMM: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"pool": "gap"}, {"global_pool": "avg", "class_token": False}),
    ({"qk_norm": True, "layer_scale": 0.1}, {"qk_norm": True, "init_values": 0.1}),
    ({"registers": 4}, {"reg_tokens": 4, "no_embed_class": True}),
    ({"registers": 2}, {"reg_tokens": 2}),
]


@pytest.mark.parametrize(("options", "theirs"), TIMM, ids=[str(theirs) for _, theirs in TIMM])
def test_timm(options: dict[str, Any], theirs: dict[str, Any]) -> None:
    net, reference = ours(**options), of_timm(**theirs)
    loaded = load(net, reference.state_dict())
    assert (loaded.new, loaded.unused, loaded.grids) == ([], [], None)
    assert loaded.taken == loaded.of == len(net.state_dict())
    assert_same(net, reference)


@pytest.mark.parametrize("representation", [None, 24])
@pytest.mark.parametrize("early", [False, True])
def test_torchvision(representation: int | None, early: bool) -> None:
    reference = of_torchvision(representation_size=representation)
    state = reference.state_dict()
    if early:  # the names in the published files, which torchvision's class still reads
        pairs = (("mlp.0", "mlp.linear_1"), ("mlp.3", "mlp.linear_2"))
        for now, before in pairs:
            state = OrderedDict((name.replace(now, before), tensor) for name, tensor in state.items())
        assert any("linear_2" in name for name in state)
    net = ours(head="linear" if representation is None else "mlp")
    loaded = load(net, state)
    assert (loaded.new, loaded.unused) == ([], [])
    assert_same(net, reference)


def test_google() -> None:
    reference = of_timm()
    arrays = {name: torch.from_numpy(array) for name, array in as_google(reference.state_dict()).items()}
    net = ours()
    loaded = load(net, arrays)
    assert (loaded.new, loaded.unused) == ([], [])
    assert_same(net, reference)
    assert heads_of(arrays) == 3


def test_google_with_a_hidden_layer_before_the_head() -> None:
    reference = of_timm()
    arrays = {name: torch.from_numpy(array) for name, array in as_google(reference.state_dict()).items()}
    kernel, bias = torch.randn(24, 24), torch.randn(24)
    net = ours(head="mlp")
    load(net, {**arrays, "pre_logits/kernel": kernel, "pre_logits/bias": bias})
    with torch.no_grad():
        hidden = torch.tanh(reference.forward_features(images())[:, 0] @ kernel + bias)  # type: ignore[operator]
        torch.testing.assert_close(net(images()), reference.head(hidden), rtol=0, atol=1e-5)  # type: ignore[operator]
    plain = ours()
    loaded = load(plain, {**arrays, "pre_logits/kernel": kernel, "pre_logits/bias": bias})
    assert (loaded.new, loaded.unused) == (["head"], ["head"])


def test_a_head_for_other_classes_stays_new_and_the_features_are_loaded() -> None:
    net, reference = ours(num_classes=7), of_timm()
    before = net.head.weight.clone()  # type: ignore[union-attr]
    loaded = load(net, reference.state_dict())
    assert (loaded.new, loaded.taken) == (["head"], loaded.of - 2)
    assert torch.equal(net.head.weight, before)  # type: ignore[arg-type]
    with torch.no_grad():
        theirs = reference.forward_features(images())  # type: ignore[operator]
        torch.testing.assert_close(net.forward_features(images()), theirs, rtol=0, atol=1e-5)


def test_a_head_for_as_many_unknown_classes_stays_new_too() -> None:
    net = ours()
    assert load(net, of_timm().state_dict(), keep_head=False).new == ["head"]


def test_positions_match_timm_at_another_size() -> None:
    small, reference = ours(image_size=16), of_timm()
    loaded = load(small, reference.state_dict())
    assert loaded.grids == (4, 2)
    reference.set_input_size((16, 16))  # type: ignore[operator]
    with torch.no_grad():
        torch.testing.assert_close(small(images(16)), reference(images(16)), rtol=0, atol=1e-4)


def test_mean_pooling_loads_the_last_norm_and_not_the_class_token() -> None:
    net, reference = ours(pool="gap"), of_timm()
    loaded = load(net, reference.state_dict())
    assert (loaded.new, loaded.unused) == ([], ["cls_token"])
    assert torch.equal(net.fc_norm.weight, reference.norm.weight)  # type: ignore[arg-type, union-attr]
    assert torch.equal(net.pos_embed, reference.pos_embed[:, 1:])  # type: ignore[arg-type, index]


def test_a_class_token_missing_from_the_weights_stays_new() -> None:
    net = ours()
    assert net.pos_embed is not None
    before = net.pos_embed[:, 0].clone()
    loaded = load(net, of_timm(global_pool="avg", class_token=False).state_dict(), keep_head=False)
    assert loaded.new == ["cls_token", "head"]
    assert torch.equal(net.pos_embed[:, 0], before)


def test_distillation_tokens_are_loaded_stay_new_or_are_unused() -> None:
    distilled = disturbed(timm_deit.VisionTransformerDistilled(**TIMMS_SIZES))
    net = ours(distillation_token=True)
    loaded = load(net, distilled.state_dict())
    assert (loaded.new, loaded.unused, loaded.taken) == ([], [], loaded.of)
    assert_same(net, distilled)
    loaded = load(ours(distillation_token=True, image_size=16), distilled.state_dict(), keep_head=False)
    assert (loaded.new, loaded.grids) == (["head", "head_dist"], (4, 2))

    plain = ours()
    assert load(plain, distilled.state_dict()).unused == ["dist_token", "head_dist"]
    assert plain.pos_embed is not None
    theirs = distilled.state_dict()["pos_embed"]
    assert torch.equal(plain.pos_embed, theirs[:, [0, *range(2, 18)]])

    net = ours(distillation_token=True)
    assert net.pos_embed is not None
    before = net.pos_embed[:, 1].clone()
    loaded = load(net, of_timm().state_dict())
    assert (loaded.new, loaded.unused) == (["dist_token", "head_dist"], [])
    assert torch.equal(net.pos_embed[:, 1], before)
    assert torch.equal(net.pos_embed[:, [0, *range(2, 18)]], of_timm().state_dict()["pos_embed"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dim": 48}, r"model\.dim=24, but this model has 48"),
        ({"depth": 3}, r"model\.depth=2, but this model has 3"),
        ({"patch_size": 4}, r"model\.patch_size=8, but"),
        ({"stem": "conv"}, r"model\.stem=patch, but this model has conv"),
        ({"stem": "shifted"}, r"model\.stem=patch, but this model has shifted"),
        ({"dim": 48, "mlp_ratio": 2}, r"model\.dim=24 model\.mlp_ratio=4, but this model has 48, 2"),
        ({"registers": 1}, r"model\.registers=0"),
        ({"qk_norm": True}, r"model\.qk_norm=false"),
        ({"layer_scale": 0.1}, r"model\.layer_scale=null"),
        ({"lsa": True}, r"model\.lsa=false"),
        ({"position_embedding": "sincos"}, r"model\.position_embedding=learned, but this model has sincos"),
        ({"num_heads": 2}, r"model\.num_heads=3, but this model has 2"),
    ],
)
def test_the_error_for_another_model_says_what_would_fit(options: dict[str, Any], said: str) -> None:
    net = ours(**options)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(Misfit, match=said):
        load(net, of_timm().state_dict(), num_heads=3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_surplus_and_missing_weights_are_refused() -> None:
    state = dict(of_timm().state_dict())
    with pytest.raises(Misfit, match=r"it has fc_extra, which this model does not have"):
        load(ours(), {**state, "fc_extra": torch.zeros(1, 1, 24)})
    del state["blocks.1.mlp.fc2.bias"]
    with pytest.raises(Misfit, match=r"it lacks blocks\.1\.mlp\.fc2\.bias"):
        load(ours(), state)


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(Misfit, match=r"patch_embed\.proj\.weight is \[24, 3, 8, 8\], but \[24, 1, 8, 8\] is needed"):
        load(ours(in_channels=1), of_timm().state_dict())


@pytest.mark.parametrize("stem", ["conv", "shifted"])
def test_our_own_stems_are_recognized_from_the_weights(stem: str) -> None:
    source = ours(stem=stem, pool="seqpool")
    net = ours(stem=stem, pool="seqpool", image_size=16)
    assert load(net, source.state_dict()).grids == (4, 2)
    with pytest.raises(Misfit, match=rf"model\.stem={stem}.* but this model has patch"):
        load(ours(), source.state_dict())
    with pytest.raises(Misfit, match=r"model\.patch_size=8, but this model has 4"):
        load(ours(stem=stem, patch_size=4), source.state_dict())


def test_other_publishers_are_not_recognized() -> None:
    assert publisher_of({"layer1.0.conv1.weight": torch.zeros(1)}) is None
