"""Corruptions grow with severity and are reproducible; the measured accuracy is consistent with the run."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vitexp.evaluate.robustness import (
    CORRUPTIONS,
    SEVERITIES,
    corrupt,
    legibility,
    measure_robustness,
)
from vitexp.evaluate.tables import robustness_table
from vitexp.runs.finished import load_run
from vitexp.runs.test_set import open_test_set


def pictures(count: int = 12, *, size: int = 32) -> np.ndarray:
    """Smooth images with an edge."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    made = []
    for _ in range(count):
        a, b, c = rng.uniform(0, 1, (3, 3))
        ramp = a * rows[..., None] + b * columns[..., None] + c * (rows > columns)[..., None]
        made.append((255 * ramp / ramp.max()).astype(np.uint8))
    return np.stack(made)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [32, 20, 64])
def test_each_severity_is_further_from_the_image(name: str, size: int) -> None:
    images = pictures(size=size)
    before = images.copy()
    corrupted = [corrupt(images, name, severity) for severity in SEVERITIES]
    assert all(each.shape == images.shape and each.dtype == np.uint8 for each in corrupted)
    assert np.array_equal(images, before)
    distances = [np.abs(each.astype(int) - images).mean() for each in corrupted]
    assert distances[0] > 0
    assert (np.diff(distances) > 0).all(), distances


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_independently_of_later_ones(name: str) -> None:
    images = pictures()
    assert np.array_equal(corrupt(images, name, 3)[:5], corrupt(images[:5], name, 3))


def test_each_image_is_corrupted_differently() -> None:
    same = np.repeat(pictures(1), 2, axis=0)
    for name in ("noise", "occlusion"):
        one, other = corrupt(same, name, 3)
        assert not np.array_equal(one, other)


def test_jpeg_keeps_the_order_of_colors() -> None:
    red = np.zeros((1, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    assert corrupt(red, "jpeg", 5)[0].mean(axis=(0, 1))[0] > 200


def test_the_example_is_a_legible_sign() -> None:
    gray = np.full((32, 32, 3), 110, np.uint8)
    sign = cv2.circle(cv2.circle(gray.copy(), (16, 16), 12, (200, 40, 40), -1), (16, 16), 9, (230, 230, 230), -1)
    sign = cv2.putText(sign, "50", (9, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20))
    silhouette = cv2.circle(np.full_like(gray, 255), (16, 16), 12, (5, 5, 5), -1)
    assert silhouette.std() > sign.std(), "the highest contrast shows no sign"
    for other in (corrupt(sign[None], "dark", 2)[0], corrupt(sign[None], "blur", 3)[0], silhouette, gray):
        assert legibility(other) < legibility(sign)


def test_the_clean_accuracy_is_that_of_the_same_images_as_prepared(finished: Path) -> None:
    """On all test images it is the accuracy of the run: CLAHE is applied after the corruption."""
    run, test = open_test_set(load_run(finished), ())
    found = measure_robustness(run, test, images=10_000)
    assert found.images == len(test.labels)
    assert found.clean == pytest.approx(run.result["metrics"]["test"]["accuracy"])
    assert found.examples.shape == (len(CORRUPTIONS), 1 + len(SEVERITIES), 32, 32, 3)
    results = found.as_json()
    assert results["mean"].keys() == CORRUPTIONS.keys()
    assert results["mean_of_all"] == pytest.approx(np.mean([*found.accuracy.values()]))
    assert len(found.rows()) == 1 + len(CORRUPTIONS) * len(SEVERITIES)
    assert robustness_table(found).markdown().count("\n") == 2 + len(CORRUPTIONS)
    assert measure_robustness(run, test, images=10).images == 10
