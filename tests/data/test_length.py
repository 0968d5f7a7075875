"""Batch size and number of epochs that follow from the number of training images."""

from __future__ import annotations

from typing import Any

import pytest

from vitexp.data.length import automatic_batch_size, automatic_epochs, lengths, measured_images


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs"),
    [
        (1, 1, 60_000),
        (20, 16, 3_750),
        (198, 32, 313),
        (1_000, 32, 61),
        (11_999, 32, 8),
        (12_000, 64, 8),
        (24_000, 128, 8),
        (45_000, 128, 8),  # CIFAR
        (10**6, 128, 8),
    ],
)
def test_small_sets_get_small_batches_and_many_epochs(images: int, batch_size: int, epochs: int) -> None:
    assert automatic_batch_size(images) == batch_size
    assert automatic_epochs(images, batch_size=batch_size) == epochs


@pytest.mark.parametrize("images", [1, 7, 33, 198, 640, 7_740, 12_345, 23_999, 100_000])
def test_training_is_long_enough(images: int) -> None:
    batch_size = automatic_batch_size(images)
    epochs = automatic_epochs(images, batch_size=batch_size)
    steps = epochs * (images // batch_size)
    assert steps >= 1_500
    assert steps * batch_size >= 60_000
    assert epochs >= 8


def test_explicit_numbers_count() -> None:
    def of(
        batch_size: int | str = "auto",
        epochs: int | str = "auto",
        steps: int = -1,
        limit: float = 1.0,
        accumulated: int = 1,
    ) -> tuple[int, int]:
        trainer: dict[str, Any] = {"max_epochs": epochs, "max_steps": steps}
        trainer |= {"limit_train_batches": limit, "accumulate_grad_batches": accumulated}
        return lengths({"data": {"batch_size": batch_size}, "trainer": trainer}, images=198)

    assert of(64, 3) == (64, 3)
    assert of(64) == (64, 313)  # 3 steps per epoch
    assert of(epochs=3) == (32, 3)
    assert of(64, steps=6_000) == (64, 2_000), "max_steps is not cut short"
    assert of(steps=6) == (32, 1), "nor more epochs promised than there will be"
    assert of(steps=600, limit=2) == (32, 300)
    assert of(steps=600, limit=2, accumulated=2) == (32, 600)
    assert of(500) == (500, 60_000), "a batch that cannot be filled is refused elsewhere"


@pytest.mark.parametrize(
    ("limit", "measured"), [(1.0, 100), (0, 0), (1, 32), (3, 96), (4, 100), (9, 100), (0.5, 64), (0.1, 0)]
)
def test_limited_validation_measures_the_first_batches(limit: int | float, measured: int) -> None:
    assert measured_images(100, batch_size=32, limit=limit) == measured
