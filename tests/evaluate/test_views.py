"""The views of test-time augmentation, and their mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vitexp.evaluate.views import predict_views, views
from vitexp.runs.finished import load_run
from vitexp.runs.test_set import open_test_set


def test_views_are_the_image_moved_by_a_pixel(finished: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    moved = {name: change(image) for name, change in views(load_run(finished)).items()}
    assert list(moved) == ["original", "left", "right", "up", "down"]
    assert np.array_equal(moved["original"], image)
    assert np.array_equal(moved["left"][:, :, :-1], image[:, :, 1:])
    assert np.array_equal(moved["right"][:, :, 1:], image[:, :, :-1])
    assert np.array_equal(moved["up"][:, :-1], image[:, 1:])
    assert np.array_equal(moved["down"][:, 1:], image[:, :-1])
    assert np.array_equal(moved["down"][:, 0], image[:, 0])  # what comes in repeats the edge


def test_mirrored_views_need_training_with_flips(finished: Path) -> None:
    run = load_run(finished)
    run.config.augment = {"_target_": "vitexp.data.augment.NaturalAugment", "flip_prob": 0.5}
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    assert len(views(run)) == 10
    assert np.array_equal(views(run)["original, mirrored"](image), image[:, :, ::-1])
    run.config.augment.flip_prob = 0.0
    assert len(views(run)) == 5


def test_the_probabilities_are_the_mean_over_the_views(finished: Path) -> None:
    run, test = open_test_set(load_run(finished), ())
    part = test.images.part(np.arange(10))
    each = [run.all_logits(part, change=change).softmax(dim=1) for change in views(run).values()]
    mean = predict_views(run, part)
    torch.testing.assert_close(mean, sum(each) / len(each))  # type: ignore[operator]
    assert not torch.allclose(mean, each[0])
