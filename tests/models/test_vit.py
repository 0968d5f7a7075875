from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitexp.models import ViT

SMALL: dict[str, Any] = {"image_size": 16, "num_classes": 5, "patch_size": 4, "dim": 24, "depth": 2, "num_heads": 3}

TOKEN: dict[str, Any] = {"distillation_token": True}

OPTIONS: list[dict[str, Any]] = [
    {},
    {"in_channels": 1},
    {"patch_size": 8},
    {"patch_size": 2, "stem": "conv"},
    {"stem": "conv"},
    {"stem": "shifted"},
    {"pool": "gap"},
    {"pool": "seqpool"},
    {"pool": "gap", "registers": 2},
    {"pool": "seqpool", "registers": 2},
    {"position_embedding": "sincos"},
    {"position_embedding": "none"},
    {"registers": 3},
    {"qk_norm": True},
    {"layer_scale": 0.1},
    {"lsa": True},
    {"mlp_conv": True},
    {"mlp_conv": True, "registers": 2},
    {"mlp_conv": True, "pool": "gap", "stem": "conv"},
    {"mlp_conv": True, "pool": "seqpool", "registers": 1},
    {"head": "mlp"},
    TOKEN,
    {"distillation_token": True, "registers": 2, "head": "mlp", "mlp_conv": True, "gradient_checkpointing": True},
    {"init": "mimetic"},
    {"dropout": 0.1, "attention_dropout": 0.1, "drop_path": 0.1},
    {"gradient_checkpointing": True},
]


def build(**options: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(**{**SMALL, **options})


def images(model: ViT, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, model.in_channels, model.image_size, model.image_size, generator=generator)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_gives_logits_tokens_and_gradients(options: dict[str, Any]) -> None:
    model = build(**options)
    x = images(model)
    tokens = model.prefix_tokens + model.grid_size**2
    assert model.forward_features(x).shape == (2, tokens, model.dim)
    logits = model(x)
    assert logits.shape == (2, 5)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_recording_attention_does_not_change_the_output(options: dict[str, Any]) -> None:
    model = build(**options).eval()
    x = images(model)
    logits, attention = model.forward_with_attention(x)
    torch.testing.assert_close(logits, model(x), rtol=0, atol=1e-5)
    tokens = model.prefix_tokens + model.grid_size**2
    assert [tuple(weights.shape) for weights in attention] == [(2, model.num_heads, tokens, tokens)] * model.depth
    for weights in attention:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, model.num_heads, tokens))


def test_logits_have_gradients_with_respect_to_the_attention() -> None:
    model = build().eval()
    logits, attention = model.forward_with_attention(images(model))
    gradients = torch.autograd.grad(logits[:, 0].sum(), attention)
    assert [gradient.shape for gradient in gradients] == [weights.shape for weights in attention]
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_prefix_tokens_count_the_class_token_and_the_registers() -> None:
    assert (build().prefix_tokens, build().has_cls, build().grid_size) == (1, True, 4)
    assert (build(registers=2).prefix_tokens, build(pool="gap", registers=2).prefix_tokens) == (3, 2)
    assert build(registers=2, distillation_token=True).prefix_tokens == 4
    assert (build(pool="gap").prefix_tokens, build(pool="gap").has_cls) == (0, False)


@pytest.mark.parametrize("pool", ["gap", "seqpool"])
def test_pooling_excludes_the_registers(pool: str) -> None:
    model = build(pool=pool, registers=2).eval()
    tokens = model.forward_features(images(model))
    changed = tokens.clone()
    changed[:, :2] += 1.0
    torch.testing.assert_close(model.forward_head(changed), model.forward_head(tokens), rtol=0, atol=0)
    changed[:, 2] += 1.0 + torch.arange(model.dim)
    assert not torch.equal(model.forward_head(changed), model.forward_head(tokens))


def test_sequence_pool_weights_sum_to_one_and_weigh_the_tokens() -> None:
    pool = build(pool="seqpool").seq_pool
    tokens = torch.randn(3, 7, 24)
    weights = pool.weights(tokens)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(pool(tokens), (weights[:, :, None] * tokens).sum(dim=1))


def test_the_same_seed_gives_the_same_bytes() -> None:
    for options in ({}, {"init": "mimetic"}, {"stem": "conv", "pool": "seqpool"}):
        first, second = build(**options).state_dict(), build(**options).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(1)
    assert not torch.equal(ViT(**SMALL).head.weight, build().head.weight)


@pytest.mark.parametrize(
    "options", [{}, {"registers": 2, "qk_norm": True}, {"lsa": True}, {"mlp_conv": True}, TOKEN], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_last_block_may_compute_only_the_class_token(options: dict[str, Any], dtype: torch.dtype) -> None:
    model = build(**options).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = images(model).to(dtype)
    results = []
    for logits in (model(x), model.forward_head(model.forward_features(x))):
        model.zero_grad()
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad.clone() for parameter in model.parameters())])
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.1, "atol": 1.0}
    torch.testing.assert_close(results[0], results[1], **tolerance)


def test_gradient_checkpointing_changes_neither_loss_nor_gradients() -> None:
    results = []
    for checkpointing in (False, True):
        model = build(gradient_checkpointing=checkpointing, dropout=0.2, attention_dropout=0.2, drop_path=0.2).train()
        torch.manual_seed(2)
        loss = F.cross_entropy(model(images(model, 4)), torch.tensor([0, 1, 2, 3]))
        loss.backward()
        results.append((loss, [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(results[0], results[1])


def test_gradient_checkpointing_computes_blocks_twice() -> None:
    model = build(gradient_checkpointing=True).train()
    calls: list[int] = []
    model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model(images(model)).sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize(
    "options", [{}, {"pool": "gap", "registers": 1, "stem": "shifted", "lsa": True, "mlp_conv": True}], ids=str
)
def test_it_compiles_as_one_graph(options: dict[str, Any]) -> None:
    model = build(**options).train()
    x = images(model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


def test_it_compiles_as_one_graph_with_the_logits_of_both_tokens() -> None:
    model = build(distillation_token=True).train()
    x = images(model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    both = compiled(x, separate=True)
    torch.testing.assert_close(both, model(x, separate=True))
    torch.testing.assert_close(both.mean(dim=0), model(x))


def test_weights_of_another_image_size_load() -> None:
    small, large = build(registers=1), build(registers=1, image_size=24)
    large.load_resized(small.state_dict())
    assert large.pos_embed is not None and small.pos_embed is not None
    assert large.pos_embed.shape == (1, 2 + 36, 24)
    torch.testing.assert_close(large.pos_embed[:, :2], small.pos_embed[:, :2], rtol=0, atol=0)
    torch.testing.assert_close(large.head.weight, small.head.weight, rtol=0, atol=0)
    assert large(images(large)).shape == (2, 5)
    again = build(registers=1)
    again.load_resized(small.state_dict())
    torch.testing.assert_close(again(images(again)), small(images(small)), rtol=0, atol=0)


def test_a_fixed_position_embedding_follows_the_image_size() -> None:
    small, large = build(position_embedding="sincos"), build(position_embedding="sincos", image_size=24)
    assert "pos_embed" not in small.state_dict()
    large.load_resized(small.state_dict())
    assert large(images(large)).shape == (2, 5)


def test_weights_that_differ_in_other_ways_do_not_load() -> None:
    with pytest.raises(RuntimeError, match="head"):
        build().load_resized(build(num_classes=7).state_dict())
    with pytest.raises(ValueError, match="position embeddings"):
        build().load_resized(build(registers=1).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 5}, "patch_size=5 does not divide image_size=16; use 1, 2, 4, 8 or 16."),
        ({"num_heads": 5}, "num_heads=5 does not divide dim=24; use 1, 2, 3, 4, 6, 8, 12 or 24."),
        ({"stem": "cnov"}, "stem='cnov' is unknown; use patch, conv, shifted."),
        ({"pool": "mean"}, "pool='mean' is unknown; use cls, gap, seqpool."),
        ({"position_embedding": "rope"}, "position_embedding='rope' is unknown; use learned, sincos, none."),
        ({"head": "zero"}, "head='zero' is unknown; use linear, mlp."),
        ({"init": "jax"}, "init='jax' is unknown; use default, mimetic."),
        (
            {"distillation_token": True, "pool": "gap"},
            "distillation_token needs a class token, which pool='gap' does not have; use 'cls'.",
        ),
        ({"depth": 0}, "depth=0 and num_classes=5 must be at least 1."),
        (
            {"image_size": 12, "patch_size": 6, "stem": "conv"},
            "patch_size=6 does not fit stem='conv', whose stages each halve the side; use a power of two, at least 2.",
        ),
        (
            {"patch_size": 1, "stem": "shifted"},
            "patch_size=1 cannot be halved, as stem='shifted' needs; use 2 or more.",
        ),
        (
            {"dim": 18, "position_embedding": "sincos"},
            "dim=18 is not divisible by 4, which the sine-cosine position embedding needs.",
        ),
    ],
)
def test_options_that_do_not_fit_give_a_one_line_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"registers": 2, "stem": "shifted"},
        {"registers": 1, "distillation_token": True},
        {"pool": "gap", "stem": "conv", "mlp_conv": True},
        {"position_embedding": "none"},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [8, 24])
def test_images_of_another_size_give_the_output_of_the_resized_net(options: dict[str, Any], size: int) -> None:
    net, resized = build(**options).eval(), build(**options, image_size=size).eval()
    resized.load_resized(net.state_dict())
    x = images(resized)
    torch.testing.assert_close(net(x), resized(x))


def test_images_of_another_size_train_the_positions() -> None:
    net = build()
    net(torch.randn(2, 3, 24, 24)).square().sum().backward()
    assert net.pos_embed is not None and net.pos_embed.grad is not None
    assert (net.pos_embed.grad.abs().sum(dim=2) > 0).all()


@pytest.mark.parametrize("shape", [(3, 18, 18), (3, 16, 24), (1, 16, 16)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"square images with 3 channels and a side divisible by patch_size=4"):
        build()(torch.zeros(1, *shape))


def test_a_layer_scale_that_starts_as_an_integer_is_learned_too() -> None:
    net = ViT(image_size=8, num_classes=3, dim=16, depth=1, num_heads=2, layer_scale=1)
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 3)


def test_tokens_have_the_type_of_autocast_between_blocks() -> None:
    net = ViT(image_size=16, num_classes=2, dim=16, depth=2, num_heads=2, patch_size=4)
    types: list[torch.dtype] = []
    for block in net.blocks:
        block.register_forward_hook(lambda _, given, made: types.extend((given[0].dtype, made.dtype)))
    net(torch.randn(2, 3, 16, 16))
    assert types == [torch.float32] * 4
    types.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(torch.randn(2, 3, 16, 16))
    assert types == [torch.bfloat16] * 4
