"""Rollout and relevance: by hand on two tokens, and against timm and captum on the real net."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation

from tests.explain.nets import grid, vit
from vitexp.explain.methods.attention import cls_attention, head_attention, relevance, rollout

timm_vit = pytest.importorskip("timm.models.vision_transformer")

# Two tokens, a class token and a patch; two layers of two heads, row = query.
TWO = {"prefix_tokens": 1, "has_cls": True, "grid_size": 1}
FIRST = torch.tensor([[[[0.6, 0.4], [0.2, 0.8]], [[0.8, 0.2], [0.6, 0.4]]]])
SECOND = torch.tensor([[[[0.5, 0.5], [0.3, 0.7]], [[0.1, 0.9], [0.3, 0.7]]]])


def test_rollout_of_two_tokens_by_hand() -> None:
    # Means of the heads: [[.7, .3], [.4, .6]] and [[.3, .7], [.3, .7]]; with half the identity
    # [[.85, .15], [.2, .8]] and [[.65, .35], [.15, .85]]. The class token's row of the product of the second with the
    # first ends in .65 * .15 + .35 * .8.
    maps = rollout([FIRST, SECOND], **TWO)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, [[[0.3775]]], atol=1e-6)


def test_relevance_of_two_tokens_by_hand() -> None:
    # The logit is linear in the weights, so its gradients are these factors. First layer: head A brings
    # max([[1 * .6, 2 * .4], [1 * .2, -1 * .8]], 0), head B [[0, 0], [.6, 0]]; mean [[.3, .4], [.4, 0]].
    # Second layer: only the class token's row reaches the logit. A: [0, 3 * .5], B: [2 * .1, 0]; mean [.1, .75].
    first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    to_first = torch.tensor([[[[1.0, 2.0], [1.0, -1.0]], [[0.0, -1.0], [1.0, 0.0]]]])
    to_second = torch.tensor([[[[-1.0, 3.0], [0.0, 0.0]], [[2.0, -2.0], [0.0, 0.0]]]])
    logit = (first * to_first).sum() + (second * to_second).sum()
    # R = (I + S)(I + F); its first row's last entry: (1 + .1) * .4 + .75 * (1 + 0).
    logits = torch.stack([logit, -logit])[None]
    maps = relevance(logits, [first, second], classes=[0], **TWO)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, [[[1.1 * 0.4 + 0.75]]], atol=1e-6)
    # For the other class all signs flip. First: A [[0, 0], [0, .8]], B [[0, .2], [0, 0]]: mean [[0, .1], [0, .4]].
    # Second: A [.5, 0], B [0, 1.8]: mean [.25, .9]. Entry: (1 + .25) * .1 + .9 * (1 + .4).
    other = relevance(logits, [first, second], classes=[1], **TWO)
    np.testing.assert_allclose(other, [[[1.25 * 0.1 + 0.9 * 1.4]]], atol=1e-6)


def test_rollout_without_class_token_by_hand() -> None:
    # Mean of the heads of a single layer [[.7, .3], [.4, .6]] as two of four patches; the others attend to themselves.
    attention = torch.eye(4).repeat(1, 2, 1, 1)
    attention[0, :, :2, :2] = FIRST[0]
    maps = rollout([attention], prefix_tokens=0, has_cls=False, grid_size=2)
    np.testing.assert_allclose(maps[0], [[(0.85 + 0.2) / 4, (0.15 + 0.8) / 4], [0.25, 0.25]], atol=1e-6)
    np.testing.assert_allclose(maps.sum(), 1.0, atol=1e-6)


def theirs(net: Any, **options: Any) -> Any:
    """Return timm's model with the weights of ours and unfused attention."""
    model = timm_vit.VisionTransformer(
        img_size=16, num_classes=5, patch_size=4, embed_dim=24, depth=3, num_heads=3, **options
    ).eval()
    model.load_state_dict(net.state_dict())
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


@pytest.mark.parametrize(
    ("ours", "options"),
    [({}, {}), ({"pool": "gap"}, {"global_pool": "avg", "class_token": False}), ({"registers": 2}, {"reg_tokens": 2})],
)
def test_flow_against_timm_and_captum(ours: dict[str, Any], options: dict[str, Any]) -> None:
    """The reference applies the papers' equations to what captum reads from timm's model."""
    net = vit(**ours)
    model, images, classes = theirs(net, **options), torch.randn(3, 3, 16, 16), [0, 3, 1]
    layers = [block.attn.attn_drop for block in model.blocks]
    seen: list[torch.Tensor] = []
    handles = [layer.register_forward_hook(lambda module, given, output: seen.append(output)) for layer in layers]
    model(images)
    for handle in handles:
        handle.remove()
    tokens = seen[0].shape[-1]
    product, relevant = np.eye(tokens)[None], np.eye(tokens)[None]
    for layer, attention in zip(layers, seen, strict=True):
        mixed = attention.detach().numpy().mean(axis=1) + np.eye(tokens)
        product = (mixed / mixed.sum(axis=-1, keepdims=True)) @ product
        times = LayerGradientXActivation(model, layer).attribute(images, target=torch.tensor(classes))
        relevant = relevant + np.maximum(times.detach().numpy(), 0).mean(axis=1) @ relevant
    if net.has_cls:
        flow, towards = product[:, 0], relevant[:, 0]
    else:
        flow, towards = product.mean(axis=1), relevant.mean(axis=1) - 1 / tokens

    logits, weights = net.forward_with_attention(images)
    ours_rollout = rollout(weights, **grid(net)).reshape(3, -1)
    ours_relevance = relevance(logits, weights, classes=classes, **grid(net)).reshape(3, -1)
    np.testing.assert_allclose(ours_rollout, flow[:, net.prefix_tokens :], atol=1e-5)
    np.testing.assert_allclose(ours_relevance, towards[:, net.prefix_tokens :], rtol=1e-3, atol=1e-6)
    assert ours_relevance.std() > 0.1 * ours_relevance.mean() > 0


def test_relevance_depends_on_the_class_and_can_be_asked_again() -> None:
    net = vit()
    logits, weights = net.forward_with_attention(torch.randn(2, 3, 16, 16))
    first = relevance(logits, weights, classes=[0, 1], **grid(net))
    other = relevance(logits, weights, classes=[2, 1], **grid(net))
    assert first.shape == (2, 4, 4) and (first >= 0).all()
    assert not np.allclose(first[0], other[0])
    np.testing.assert_array_equal(first[1], other[1])


def test_classes_that_do_not_fit() -> None:
    net = vit()
    logits, weights = net.forward_with_attention(torch.randn(2, 3, 16, 16))
    with pytest.raises(ValueError, match="2 images"):
        relevance(logits, weights, classes=[0], **grid(net))
    with pytest.raises(IndexError, match="0 to 4"):
        relevance(logits, weights, classes=[0, 5], **grid(net))
    with pytest.raises(IndexError, match="0 to 4"):
        relevance(logits, weights, classes=[0, -1], **grid(net))


def test_every_head_and_the_mean_of_the_heads() -> None:
    net = vit(registers=1)
    with torch.no_grad():
        _, weights = net.forward_with_attention(torch.randn(2, 3, 16, 16))
    maps = head_attention(weights, **grid(net))
    assert maps.shape == (2, 3, 3, 4, 4) and maps.dtype == np.float32
    np.testing.assert_array_equal(maps[1, 2, 1].ravel(), weights[2][1, 1, 0, 2:].numpy())
    np.testing.assert_allclose(maps[:, 1].mean(axis=1), cls_attention(weights, **grid(net), layer=1), atol=1e-7)


@pytest.mark.parametrize("flow", [rollout, head_attention])
def test_tokens_that_do_not_fit_the_grid(flow: Any) -> None:
    with pytest.raises(ValueError, match=r"5 tokens.*make 10"):
        flow([torch.full((1, 1, 5, 5), 0.2)], prefix_tokens=1, has_cls=True, grid_size=3)
