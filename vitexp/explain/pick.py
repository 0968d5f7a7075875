"""Choose the images to explain: test images drawn with a fixed seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitexp.explain.explainer import Explainer, ImageSet

_SEARCHED = 2000  # test images that are searched for mistakes


def drawn_at_random(count: int, wanted: int) -> NDArray[np.int64]:
    """Return `wanted` indices below `count`, or all if there are fewer, in random order."""
    return np.random.default_rng(0).permutation(count)[:wanted].astype(np.int64)


def right_and_wrong(explainer: Explainer, test: ImageSet, *, count: int) -> NDArray[np.int64]:
    """Return indices of test images, two fifths of them mistakes if there are enough."""
    order = drawn_at_random(len(test), _SEARCHED)
    predicted = explainer.probabilities(test.images(order)).argmax(axis=1)
    return mixed(order, predicted == test.labels[order], count=count)


def mixed(order: NDArray[np.int64], hit: NDArray[np.bool_], *, count: int) -> NDArray[np.int64]:
    """Return the first `count` of `order` [N], two fifths of them mistakes (not `hit` [N]) if there are enough."""
    wrong = order[~hit][: count * 2 // 5]
    right = order[hit][: count - len(wrong)]
    return np.concatenate([right, wrong])
