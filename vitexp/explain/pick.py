"""Which images are explained: test images drawn at random (always the same ones), or a picture from a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitexp.explain.explainer import Explainer, ImageSet

_SEARCHED = 2000  # test images among which mistakes are looked for


def drawn_at_random(count: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` indices below `count`, or all where these are fewer; in random order."""
    return np.random.default_rng(0).permutation(count)[:wanted].astype(np.int64)


def right_and_wrong(explainer: Explainer, test: ImageSet, *, count: int) -> NDArray[np.int64]:
    """Indices of test images: two of five are mistakes, where there are as many, and the rest right."""
    order = drawn_at_random(len(test), _SEARCHED)
    predicted = explainer.probabilities(test.images(order)).argmax(axis=1)
    return mixed(order, predicted == test.labels[order], count=count)


def mixed(order: NDArray[np.int64], hit: NDArray[np.bool_], *, count: int) -> NDArray[np.int64]:
    """The first of `order` [N]: right ones, where `hit` [N], and two of five mistakes, where there are as many."""
    wrong = order[~hit][: count * 2 // 5]
    right = order[hit][: count - len(wrong)]
    return np.concatenate([right, wrong])
