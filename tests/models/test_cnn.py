from __future__ import annotations

import pytest
import torch
from torch import nn

from vitexp.models import SimpleCNN
from vitexp.models.resnet import ResNet18


@pytest.mark.parametrize(("image_size", "in_channels"), [(16, 3), (32, 1), (40, 3)])
def test_the_simple_cnn_gives_logits(image_size: int, in_channels: int) -> None:
    model = SimpleCNN(num_classes=5, image_size=image_size, in_channels=in_channels)
    assert model(torch.randn(2, in_channels, image_size, image_size)).shape == (2, 5)
    widths = [layer.out_channels for layer in model.features if isinstance(layer, nn.Conv2d)]
    assert widths == [32, 64, 128, 256]


def test_resnet18_keeps_the_resolution_up_to_its_first_stage() -> None:
    model = ResNet18(num_classes=5, image_size=32, in_channels=1).eval()
    sizes: dict[str, torch.Size] = {}
    for name in ("layer1", "layer4"):
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: sizes.update({name: out.shape}))
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    assert sizes == {"layer1": (2, 64, 32, 32), "layer4": (2, 512, 4, 4)}


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="image_size=15 cannot be halved four times; use 16 pixels or more"):
        SimpleCNN(num_classes=5, image_size=15)
    with pytest.raises(ValueError, match="image_size=7 cannot be halved three times; use 8 pixels or more"):
        ResNet18(num_classes=5, image_size=7)


def test_the_hidden_layer_of_the_published_pair() -> None:
    net = SimpleCNN(num_classes=10, image_size=32, hidden=512)
    assert sum(parameter.numel() for parameter in net.parameters()) == 918_826  # published as 919 k
