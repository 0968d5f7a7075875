"""Grad-CAM: by hand on two positions, and against captum and pytorch-grad-cam on our nets."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM, GradCAMElementWise
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from tests.explain.nets import pvt, swin, trained, vit
from vitexp.explain.explainer import Explainer
from vitexp.explain.methods.grad_cam import (
    channels_first,
    elementwise_grad_cam,
    grad_cam,
    last_map_layer,
    record,
    token_grid,
)
from vitexp.models import SimpleCNN, SwinTransformer
from vitexp.models.resnet import ResNet18


def test_two_places_by_hand() -> None:
    # Two channels over two positions; mean gradients (1 + 3) / 2 = 2 and (-1 + 0) / 2 = -0.5.
    activations = torch.tensor([[[[1.0, 2.0]], [[6.0, 2.0]]]])
    gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, 0.0]]]])
    maps = grad_cam(activations, gradients)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, [[[0.0, 3.0]]])  # 2 - 3 is cut to 0; 4 - 1


def test_two_tokens_by_hand() -> None:
    # A class token and a patch of two channels: only the patch counts.
    tokens = torch.tensor([[[9.0, 9.0], [2.0, 5.0]]])
    gradients = torch.tensor([[[9.0, 9.0], [3.0, -1.0]]])
    maps = grad_cam(*(token_grid(each, prefix_tokens=1, grid_size=1) for each in (tokens, gradients)))
    np.testing.assert_allclose(maps, [[[1.0]]])


def test_tokens_lie_row_by_row() -> None:
    tokens = torch.arange(9.0).view(1, 9, 1)
    np.testing.assert_array_equal(token_grid(tokens, prefix_tokens=5, grid_size=2)[0, 0], [[5, 6], [7, 8]])


def stretched(maps: np.ndarray) -> np.ndarray:
    """Scale each map to [0, 1], as pytorch-grad-cam does."""
    lowest = maps.min(axis=(1, 2), keepdims=True)
    return (maps - lowest) / (1e-7 + (maps - lowest).max(axis=(1, 2), keepdims=True))


@pytest.mark.parametrize(("ours", "theirs"), [(grad_cam, GradCAM), (elementwise_grad_cam, GradCAMElementWise)])
@pytest.mark.parametrize("options", [{}, {"registers": 2}, {"pool": "gap"}, {"pool": "seqpool"}])
def test_tokens_against_pytorch_grad_cam(options: dict[str, Any], ours: Any, theirs: Any) -> None:
    net, images, classes = vit(**options), torch.randn(4, 3, 16, 16), [0, 4, 2, 2]
    layer: Any = net.blocks[-1].norm1  # type: ignore[union-attr]

    def to_grid(tokens: Tensor) -> Tensor:
        return token_grid(tokens, prefix_tokens=net.prefix_tokens, grid_size=4)

    maps = ours(*map(to_grid, record(net, layer, images, classes)))
    with theirs(net, [layer], reshape_transform=to_grid) as cam:
        reference = cam(images, [ClassifierOutputTarget(label) for label in classes])
    # theirs are resized to the images, and scaled to [0, 1] before and after that
    resized = stretched(np.stack([cv2.resize(each, (16, 16)) for each in stretched(maps)]))
    np.testing.assert_allclose(resized, reference, atol=1e-4)
    assert resized.std() > 0.1


def test_elementwise_by_hand() -> None:
    # Products 1 and 6 of the first channel, -6 and 0 of the second.
    activations = torch.tensor([[[[1.0, 2.0]], [[6.0, 2.0]]]])
    gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, 0.0]]]])
    np.testing.assert_allclose(elementwise_grad_cam(activations, gradients), [[[1.0, 6.0]]])


class Swapped(nn.Module):
    """A convolution whose output has channels last, as in a Swin Transformer."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, channels, 4, stride=4)
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.norm(self.convolution(x).permute(0, 2, 3, 1))
        return self.head((maps * torch.tensor([1.0, *[0.0] * 7])[:, None, None]).mean(dim=(1, 2)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("channels", [12, 8])  # 8: as many channels as rows
def test_channels_last_is_not_read_as_rows(channels: int) -> None:
    torch.manual_seed(0)
    net, images = Swapped(channels=channels).eval(), torch.randn(2, 3, 32, 32)
    layer = last_map_layer(net, images)
    assert layer is net.norm
    output, gradient = (channels_first(each, layer) for each in record(net, layer, images, [0, 1]))
    assert output.shape == (2, channels, 8, 8)
    assert (gradient[:, :, 1:] == 0).all() and gradient[:, :, 0].abs().sum() > 0, "only the first row is read"


@pytest.mark.parametrize("make", [SimpleCNN, ResNet18])
def test_maps_against_captum(make: Any) -> None:
    torch.manual_seed(0)
    net = make(num_classes=5, image_size=32).eval()
    images, classes = torch.randn(3, 3, 32, 32), [1, 0, 4]
    layer = last_map_layer(net, images)
    maps = grad_cam(*record(net, layer, images, classes))
    reference = LayerGradCam(net, layer).attribute(images, target=torch.tensor(classes), relu_attributions=True)
    assert maps.shape == (3, 4, 4) and maps.max() > 0
    np.testing.assert_allclose(maps, reference.detach().numpy()[:, 0], rtol=1e-4, atol=1e-7)


def test_the_last_map_is_found() -> None:
    images = torch.randn(1, 3, 32, 32)
    simple = SimpleCNN(num_classes=5, image_size=32).eval()
    assert last_map_layer(simple, images) is simple.features[-2]  # 4 x 4, before the pool makes 2 x 2 of it
    deep = ResNet18(num_classes=5, image_size=32).eval()
    assert last_map_layer(deep, images) is deep.layer4
    with pytest.raises(ValueError, match="4 x 4"):
        last_map_layer(nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)), images)


def test_frozen_nets_have_gradients_too_and_keep_no_hooks() -> None:
    net = vit().requires_grad_(False)
    with torch.no_grad():
        activations, gradients = record(net, net.blocks[-1].norm1, torch.randn(1, 3, 16, 16), [0])
    assert activations.shape == gradients.shape == (1, 17, 24)
    assert gradients[0, 1:].abs().sum() > 0
    assert not any(module._forward_hooks for module in net.modules())


def test_what_does_not_fit() -> None:
    net = vit()
    with pytest.raises(ValueError, match="does not call"):
        record(net, nn.Identity(), torch.randn(1, 3, 16, 16), [0])
    with pytest.raises(ValueError, match=r"\[B, channels, h, w\]"):
        grad_cam(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3))


@pytest.mark.parametrize(("depth", "block"), [(1, 0), (2, 0), (3, 1), (6, 2)])
def test_an_explainer_reads_the_tokens_after_a_third_of_the_blocks(depth: int, block: int) -> None:
    net = vit(depth=depth)
    explainer = Explainer(trained(net))
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    recorded = record(net, net.blocks[block], explainer.run.prepared(images), [0, 1, 2], of_input=True)
    tokens = (token_grid(each, prefix_tokens=net.prefix_tokens, grid_size=4) for each in recorded)
    maps = explainer.maps("grad_cam", images, [0, 1, 2])
    np.testing.assert_allclose(maps, elementwise_grad_cam(*tokens), rtol=1e-5)
    if block > 0:
        before = record(net, net.blocks[block - 1], explainer.run.prepared(images), [0, 1, 2])
        torch.testing.assert_close(recorded, before)
    assert maps.std() > 0


def test_an_explainer_reads_the_map_after_a_third_of_the_stages() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    for net in (swin(depths=(1, 1, 1), num_heads=(1, 1, 1)), pvt()):
        explainer = Explainer(trained(net))
        first, of_input = ("layers.0", False) if isinstance(net, SwinTransformer) else ("stages.0", True)
        recorded = record(net, net.get_submodule(first), explainer.run.prepared(images), [0, 1, 2], of_input=of_input)
        maps = [each.permute(0, 3, 1, 2) for each in recorded]
        found = explainer.maps("grad_cam", images, [0, 1, 2])
        assert found.shape == (3, 8, 8)
        np.testing.assert_allclose(found, elementwise_grad_cam(*maps), rtol=1e-5)
