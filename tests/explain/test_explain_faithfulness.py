from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vitexp.explain.methods.faithfulness import area_under, blurred, deletion, insertion


def brightness(images: Tensor) -> Tensor:
    """Return the logits of two classes, from the bright pixels of the upper left quarter."""
    bright = (images[:, 0, :4, :4] > 0.5).float().mean(dim=(1, 2))
    return torch.stack([20 * bright - 10, torch.zeros(len(images))], dim=1)


IMAGES = torch.ones(2, 3, 8, 8)
QUARTER = np.zeros((2, 8, 8), np.float32)
QUARTER[:, :4, :4] = 1.0


def test_the_true_map_deletes_at_once_and_its_opposite_last() -> None:
    arguments = {"classes": [0, 0], "cells": 2, "steps": 4}
    good = deletion(brightness, IMAGES, QUARTER, **arguments)
    assert good.shape == (2, 5) and good.dtype == np.float32
    np.testing.assert_allclose(good, [[1, 0, 0, 0, 0]] * 2, atol=1e-4)
    np.testing.assert_allclose(area_under(good), [0.125, 0.125], atol=1e-4)
    bad = deletion(brightness, IMAGES, -QUARTER, **arguments)
    np.testing.assert_allclose(bad, [[1, 1, 1, 1, 0]] * 2, atol=1e-4)
    np.testing.assert_allclose(area_under(bad), [0.875, 0.875], atol=1e-4)


def test_the_true_map_inserts_at_once() -> None:
    # Stripes of a pixel, which blur to 0.5; a third of the pixels in the quarter are bright enough once sharp.
    images = torch.zeros(1, 3, 8, 8)
    images[..., ::2] = 1.0
    net_of = {"classes": [0], "cells": 2, "steps": 4, "sigma": 2.0}

    def stripes(given: Tensor) -> Tensor:
        return torch.stack([20 * given[:, 0, :4, :4].std(dim=(1, 2)) - 5, torch.zeros(len(given))], dim=1)

    good = insertion(stripes, images, QUARTER[:1], **net_of)
    bad = insertion(stripes, images, -QUARTER[:1], **net_of)
    assert good[0, 0] < 0.1 and (good[0, 1:] > 0.9).all()
    assert (bad[0, :4] < 0.1).all() and bad[0, 4] > 0.9
    assert area_under(good)[0] > area_under(bad)[0] + 0.5


def test_the_ends_are_the_two_images_whatever_the_map() -> None:
    maps = np.random.default_rng(0).random((2, 3, 5), dtype=np.float32)  # neither square nor a multiple of the cells
    curves = deletion(brightness, IMAGES, maps, classes=[0, 1], cells=4, steps=5)
    np.testing.assert_allclose(curves[:, 0], [1, 0], atol=1e-4)
    np.testing.assert_allclose(curves[:, -1], [0, 1], atol=1e-4)


def test_coarse_maps_are_spread_over_the_cells() -> None:
    coarse = np.array([[[1.0, 0.0], [0.0, 0.0]]], np.float32)
    fine = deletion(brightness, IMAGES[:1], coarse, classes=[0], cells=4, steps=4)
    np.testing.assert_allclose(fine, [[1, 0, 0, 0, 0]], atol=1e-4)


def test_equal_cells_go_in_an_order_of_the_seed() -> None:
    flat = np.zeros((2, 2, 2), np.float32)

    def curve(seed: int) -> list[float]:
        return deletion(brightness, IMAGES, flat, classes=[0, 0], cells=8, steps=16, seed=seed)[0].tolist()

    assert curve(0) == curve(0) != curve(1)
    assert 0.2 < np.mean([area_under(np.array([curve(seed)]))[0] for seed in range(10)]) < 0.8


def test_area_of_a_straight_line() -> None:
    np.testing.assert_allclose(area_under(np.array([[0.0, 0.5, 1.0], [1.0, 1.0, 1.0]])), [0.5, 1.0])


def test_blur_keeps_flat_images_and_takes_stripes() -> None:
    np.testing.assert_allclose(blurred(IMAGES, sigma=1.0), IMAGES, atol=1e-6)
    stripes = torch.zeros(1, 1, 32, 32)
    stripes[..., ::2] = 1.0
    soft = blurred(stripes, sigma=2.0)
    assert soft.shape == stripes.shape
    np.testing.assert_allclose(soft[..., 8:24], 0.5, atol=1e-3)
    assert blurred(torch.rand(1, 3, 4, 4), sigma=3.0).isfinite().all()  # a kernel wider than the image


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="steps=17"):
        deletion(brightness, IMAGES, QUARTER, classes=[0, 0], cells=4, steps=17)
    with pytest.raises(ValueError, match="2 images"):
        deletion(brightness, IMAGES, QUARTER[:1], classes=[0, 0], cells=4)
