"""The Swin Transformer and PVT v2: timm's function under timm's names, and what is ours."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitexp.models import PyramidVisionTransformer, SwinTransformer
from vitexp.models.pvt import OverlappingPatches, ReducedAttention
from vitexp.models.swin import ShiftedMerging
from vitexp.models.window_attention import WindowAttention

SWIN: dict[str, Any] = {"dim": 12, "depths": (2, 3, 2), "num_heads": (2, 3, 4)}
PVT: dict[str, Any] = {
    "dims": (8, 16, 24),
    "depths": (1, 2, 1),
    "num_heads": (1, 2, 3),
    "reductions": (4, 2, 1),
    "mlp_ratios": (4.0, 3.0, 2.0),
}


def swin(image_size: int = 32, **options: Any) -> SwinTransformer:
    return SwinTransformer(image_size=image_size, num_classes=5, **{**SWIN, **options})


def pvt(image_size: int = 32, **options: Any) -> PyramidVisionTransformer:
    return PyramidVisionTransformer(image_size=image_size, num_classes=5, **{**PVT, **options})


BUILDERS = pytest.mark.parametrize("build", [swin, pvt])


def agree_both_ways(model: nn.Module, reference: nn.Module, images: Tensor) -> None:
    """Check that weights load strictly in both directions, and that logits are then equal."""
    model.eval(), reference.eval()
    for source, target in ((model, reference), (reference, model)):
        for parameter in source.parameters():
            nn.init.normal_(parameter, std=0.2)
        target.load_state_dict(source.state_dict(), strict=True)
        with torch.no_grad():
            mine, theirs = model(images), reference(images)
        assert mine.std() > 0.01
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (32, {}),
        (24, {}),  # the map of the second stage is padded, that of the last is smaller than a window
        (48, {}),
        (20, {}),  # maps of odd sides are merged
        (30, {"window_size": 3}),  # windows of odd sides
        (8, {"depths": (2,), "num_heads": (2,)}),
        (28, {"patch_size": 4, "window_size": 7, "mlp_ratio": 3.5}),
    ],
    ids=str,
)
def test_swin_is_timms(size: int, options: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm.models.swin_transformer")
    model, sizes = swin(size, **options), {"patch_size": 2, "window_size": 4, "mlp_ratio": 2.0, **SWIN, **options}
    reference = timm.SwinTransformer(img_size=size, num_classes=5, embed_dim=sizes.pop("dim"), **sizes)
    agree_both_ways(model, reference, torch.randn(2, 3, size, size))


@pytest.mark.parametrize(("size", "reductions"), [(32, (4, 2, 1)), (24, (4, 2, 1)), (42, (3, 2, 1)), (17, (1, 1, 1))])
def test_pvt_is_timms(size: int, reductions: tuple[int, ...]) -> None:
    timm = pytest.importorskip("timm.models.pvt_v2")
    model = pvt(size, reductions=reductions)
    sizes = {key: PVT[key] for key in ("depths", "num_heads", "mlp_ratios")}
    reference = timm.PyramidVisionTransformerV2(num_classes=5, embed_dims=PVT["dims"], sr_ratios=reductions, **sizes)
    agree_both_ways(model, reference, torch.randn(2, 3, size, size))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (SwinTransformer, 7_083_262),
        (PyramidVisionTransformer, 3_435_460),
    ],
)
def test_the_default_sizes_are_the_published_ones(model: type[nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        assert sum(each.numel() for each in model(image_size=32, num_classes=100).parameters()) == parameters


def test_b1_is_a_question_of_keys() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = PyramidVisionTransformer(image_size=32, num_classes=100, dims=(64, 128, 320, 512))
        reference = timm.create_model("pvt_v2_b1", num_classes=100)
    assert {name: each.shape for name, each in model.state_dict().items()} == {
        name: each.shape for name, each in reference.state_dict().items()
    }


@BUILDERS
@pytest.mark.parametrize("size", [8, 16, 24, 40])
def test_other_image_sizes_work(build: Any, size: int) -> None:
    model = build()
    model(torch.randn(2, 3, size, size)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_at_another_size_the_windows_are_those_of_a_network_made_for_it() -> None:
    small, large = swin(32).eval(), swin(64).eval()
    small.load_state_dict(large.state_dict())  # windows of 4 in all stages of both
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(small(images), large(images))


def test_a_map_smaller_than_the_window_uses_the_biases_of_its_own_offsets() -> None:
    large = WindowAttention(dim=8, num_heads=2, window_size=4, shift=0)
    small = WindowAttention(dim=8, num_heads=2, window_size=2, shift=0)
    weights = large.state_dict()
    table = weights["relative_position_bias_table"].view(7, 7, 2)
    weights["relative_position_bias_table"] = table[2:5, 2:5].reshape(9, 2)
    small.load_state_dict(weights)
    x = torch.randn(3, 2, 2, 8)
    torch.testing.assert_close(large(x), small(x))


@BUILDERS
def test_wrong_images_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match="1 channels and 32x32 pixels; this model takes square images with 3 channels"):
        build()(torch.randn(2, 1, 32, 32))
    with pytest.raises(ValueError, match="32x16 pixels"):
        build()(torch.randn(2, 3, 32, 16))


@BUILDERS
@pytest.mark.parametrize("option", [{"num_heads": (2, 3)}, {"num_heads": (5, 5, 5)}])
def test_sizes_that_do_not_fit_are_refused(build: Any, option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"one number per stage|does not divide"):
        build(**option)
    with pytest.raises(ValueError, match="patch_size=64 "):
        build(patch_size=64)


@BUILDERS
def test_recomputing_blocks_changes_nothing(build: Any) -> None:
    torch.manual_seed(0)
    model = build(drop_path=0.3, dropout=0.1).train()
    recomputing = copy.deepcopy(model)
    recomputing.gradient_checkpointing = True
    images = torch.randn(4, 3, 32, 32)
    for each in (model, recomputing):
        torch.manual_seed(1)
        each(images).square().sum().backward()
    for (name, mine), theirs in zip(model.named_parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)


@BUILDERS
def test_drop_path_rises_over_all_stages(build: Any) -> None:
    rates = [float(module.rate) for module in build(drop_path=0.3).modules() if type(module).__name__ == "DropPath"]
    blocks = sum((SWIN if build is swin else PVT)["depths"])
    assert rates == pytest.approx([0.3 * block / (blocks - 1) for block in range(1, blocks)])  # none in the first


def test_lsa_keeps_every_token_from_itself() -> None:
    attention = WindowAttention(dim=8, num_heads=2, window_size=2, shift=0, lsa=True).eval()
    x = torch.randn(1, 4, 4, 8, requires_grad=True)
    nn.init.zeros_(attention.qkv.weight[:16])  # equal scores, so that the output is a mean of values
    attention(x)[0, 0, 0].sum().backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(dim=2) > 0
    assert touched.nonzero().tolist() == [[0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("size", [4, 8, 24, 32])
def test_sl_swin_is_finite_and_learns_its_temperatures(size: int) -> None:
    model = swin(size, stem="shifted", lsa=True)  # with maps of one token, and windows with areas of one token
    loss = model(torch.randn(2, 3, size, size)).square().sum()
    loss.backward()
    assert loss.isfinite()
    scale = model.layers[0].blocks[0].attn.scale
    assert scale.shape == (2, 1, 1)
    assert (scale.grad is not None and scale.grad.abs().sum() > 0) or size == 2


def test_shifted_merging_sees_one_cell_beyond_its_own() -> None:
    merging = ShiftedMerging(dim=3)
    x = torch.randn(1, 6, 6, 3, requires_grad=True)
    made = merging(x)
    assert made.shape == (1, 3, 3, 6)
    made[0, 1, 1].square().sum().backward()
    assert x.grad is not None
    assert (x.grad[0].abs().sum(dim=2) > 0).nonzero().tolist() == [
        [row, column] for row in range(1, 5) for column in range(1, 5)
    ]


@BUILDERS
def test_flops_are_counted(build: Any) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build()(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() > 10**5


def test_a_depthwise_convolution_of_tiny_maps_is_a_convolution() -> None:
    from vitexp.models.block import TokenConv

    conv = TokenConv(dim=4, prefix_tokens=0)
    for side in (1, 2, 3):
        grid = torch.randn(2, 4, side, side)
        made = conv(grid.flatten(2).transpose(1, 2))
        expected = nn.functional.conv2d(grid, conv.weight, conv.bias, padding=1, groups=4)
        torch.testing.assert_close(made, expected.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(("side", "shift"), [(8, 0), (8, 2), (6, 2), (3, 2)])
def test_received_attention_of_windows_is_how_much_the_outputs_depend_on_a_position(side: int, shift: int) -> None:
    attention = WindowAttention(dim=6, num_heads=2, window_size=4, shift=shift)
    check_received(attention, attention.qkv.weight, side=side)


def test_received_attention_of_a_shrunk_map() -> None:
    side = 6
    attention = ReducedAttention(dim=6, num_heads=2, reduction=1)
    with torch.no_grad():
        joined = torch.cat([attention.q.weight, attention.kv.weight])
    attention.q.weight.data, attention.kv.weight.data = joined[:6], joined[6:]  # views of one matrix
    check_received(attention, joined, side=side, flat=True)
    shrunk = ReducedAttention(dim=6, num_heads=2, reduction=2).received(torch.randn(3, side**2, 6))
    assert shrunk.shape == (3, 2, side // 2, side // 2)
    torch.testing.assert_close(shrunk.mean(dim=(2, 3)), torch.ones(3, 2))


def check_received(attention: nn.Module, qkv: Tensor, *, side: int, flat: bool = False) -> None:
    """Compare with gradients: channel 0 of the input becomes the values, and nothing else does."""
    torch.manual_seed(0)
    with torch.no_grad():
        nn.init.normal_(qkv)
        qkv[:, 0] = 0
        qkv[12:] = 0
        qkv[[12, 15], 0] = 1  # the first channel of each head
        for bias in (each for name, each in attention.named_parameters() if name.endswith("bias")):
            bias.zero_()
        attention.proj.weight.copy_(torch.eye(6))  # type: ignore[operator, union-attr]
    x = torch.randn(2, side, side, 6).requires_grad_()
    given = x.flatten(1, 2) if flat else x
    received = attention.received(given)  # type: ignore[operator]
    assert received.std() > 0.1
    for head in range(2):
        [gradient] = torch.autograd.grad(attention(given)[..., 3 * head].sum(), x)
        torch.testing.assert_close(received[:, head], gradient[..., 0])


@BUILDERS
def test_received_attention_has_a_map_of_each_head_of_each_block(build: Any) -> None:
    net = build(48).eval()
    images = torch.randn(2, 3, 48, 48)
    received = net.received_attention(images)
    assert [len(blocks) for blocks in received] == list(net.depths)
    assert [blocks[0].shape[1] for blocks in received] == list(net.num_heads)
    sides = [24, 12, 6] if build is swin else [3, 3, 3]
    assert [blocks[0].shape for blocks in received] == [(2, net.num_heads[i], s, s) for i, s in enumerate(sides)]
    with pytest.raises(ValueError, match="square"):
        net.received_attention(torch.randn(2, 3, 48, 40))


@pytest.mark.parametrize(("side", "stride"), [(1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (5, 2)])
def test_gradients_of_patches_of_small_maps_are_right_in_bfloat16(side: int, stride: int) -> None:
    """torch leaves parts of them unwritten without padding, so that training would end in NaN now and then."""
    torch.manual_seed(0)
    patches = OverlappingPatches(in_channels=64, stride=stride, dim=64)
    images, towards = torch.randn(8, 64, side, side), torch.randn(64)
    gradients = []
    for enabled in (True, False):
        dirty = [torch.full((size,), math.nan) for size in (2**10, 2**14, 2**18, 2**20) for _ in range(3)]
        del dirty  # memory that is used next
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            made = patches(images)
        gradients += torch.autograd.grad((made * towards).sum(), patches.proj.weight)
    assert made.shape == (8, -(-side // stride), -(-side // stride), 64)
    torch.testing.assert_close(*gradients, rtol=0.05, atol=0.05 * float(gradients[1].abs().max()))
