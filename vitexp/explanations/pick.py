"""Which images are explained: test images drawn at random (always the same ones), or a picture from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from vitexp.data.imagefile import read_image
from vitexp.data.prepare import Prepared
from vitexp.data.transforms import build_transforms
from vitexp.explanations.explainer import Explainer, Images

if TYPE_CHECKING:
    from vitexp.finished_run import FinishedRun

_SEARCHED = 2000  # test images among which mistakes are looked for


def drawn_at_random(count: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` indices below `count`, or all where these are fewer; in random order."""
    return np.random.default_rng(0).permutation(count)[:wanted].astype(np.int64)


def right_and_wrong(explainer: Explainer, test: Prepared, *, count: int) -> NDArray[np.int64]:
    """Indices of test images: two of five are mistakes, where there are as many, and the rest right."""
    order = drawn_at_random(len(test), _SEARCHED)
    predicted = explainer.probabilities(test.images(order)).argmax(axis=1)
    return mixed(order, predicted == test.labels[order], count=count)


def mixed(order: NDArray[np.int64], hit: NDArray[np.bool_], *, count: int) -> NDArray[np.int64]:
    """The first of `order` [N]: right ones, where `hit` [N], and two of five mistakes, where there are as many."""
    wrong = order[~hit][: count * 2 // 5]
    right = order[hit][: count - len(wrong)]
    return np.concatenate([right, wrong])


def read_prepared(run: FinishedRun, path: Path) -> Images:
    """A picture from a file, prepared as the run's data were: uint8 [1, S, S, 3]. Raises BrokenImage, a UserError."""
    image = read_image(path)
    transforms: Any = OmegaConf.to_container(run.config.data.prepare, resolve=True)
    for transform in build_transforms(transforms):
        image = transform(image=image)["image"]
    return image[None]
