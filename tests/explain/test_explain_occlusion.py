from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from torch import Tensor

from tests.explain.nets import vit
from vitexp.explain.methods.occlusion import occlusion


def corner(images: Tensor) -> Tensor:
    """Return the logits of two classes, from the upper left pixel alone."""
    return torch.stack([images[:, 0, 0, 0], torch.zeros(len(images))], dim=1)


def test_only_the_window_over_what_is_seen_matters() -> None:
    maps = occlusion(corner, torch.full((1, 3, 4, 4), 2.0), classes=[0], window=2, stride=2)
    assert maps.dtype == np.float32 and maps.shape == (1, 4, 4)
    drop = 1 / (1 + np.exp(-2)) - 0.5
    np.testing.assert_allclose(maps[0, :2, :2], drop, rtol=1e-6)
    assert np.count_nonzero(maps) == 4
    other = occlusion(corner, torch.full((1, 3, 4, 4), 2.0), classes=[1], window=2, stride=2)
    np.testing.assert_allclose(other, -maps, atol=1e-7)


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (4, 2), (5, 3), (16, 16)])
def test_against_captum(window: int, stride: int) -> None:
    net, images, classes = vit(), torch.randn(2, 3, 16, 16), [4, 1]
    maps = occlusion(net, images, classes=classes, window=window, stride=stride, batch_size=7)
    reference = Occlusion(lambda given: net(given).softmax(dim=1)).attribute(
        images, target=torch.tensor(classes), sliding_window_shapes=(3, window, window), strides=(3, stride, stride)
    )
    np.testing.assert_allclose(maps, reference.detach().numpy()[:, 0], atol=1e-6)
    assert np.abs(maps).max() > 1e-3 and np.abs(maps).max() <= 1


@pytest.mark.parametrize(("window", "stride"), [(2, 3), (2, 0), (0, 0)])
def test_windows_that_leave_pixels_out(window: int, stride: int) -> None:
    with pytest.raises(ValueError, match="stride="):
        occlusion(corner, torch.zeros(1, 3, 4, 4), classes=[0], window=window, stride=stride)
