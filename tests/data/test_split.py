"""The validation split."""

from __future__ import annotations

import numpy as np
import pytest

from vitexp.data.split import train_val_split


def tracks(sizes_by_class: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    labels, groups, group = [], [], 0
    for label, sizes in enumerate(sizes_by_class):
        for size in sizes:
            labels += [label] * size
            groups += [group] * size
            group += 1
    return np.array(labels), np.array(groups)


def test_no_group_is_divided_and_no_image_lost() -> None:
    labels, groups = tracks([[30] * 20, [30] * 7, [29, 30, 31]])
    train, val = train_val_split(labels, groups, val_fraction=0.1, seed=3)
    assert sorted([*train, *val]) == list(range(len(labels)))
    assert not set(groups[train]) & set(groups[val])


def test_validation_gets_about_the_fraction_of_every_class() -> None:
    labels, groups = tracks([[30] * 40, [30] * 10, [10] * 33])
    _, val = train_val_split(labels, groups, val_fraction=0.2, seed=0)
    counts = np.bincount(labels[val])
    assert counts[0] == 240
    assert counts[1] == 60
    assert abs(counts[2] - 66) <= 5


def test_every_class_keeps_training_images_and_gives_a_group_if_possible() -> None:
    labels, groups = tracks([[30], [30, 30], [1, 1, 1, 1, 1]])
    train, val = train_val_split(labels, groups, val_fraction=0.01, seed=0)
    assert set(labels[train]) == {0, 1, 2}
    assert set(labels[val]) == {1, 2}


def test_the_split_depends_on_the_seed() -> None:
    labels, groups = tracks([[1] * 100, [1] * 100])
    first, again, other = (train_val_split(labels, groups, val_fraction=0.3, seed=seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5])
def test_refuses_fractions_that_leave_nothing(fraction: float) -> None:
    labels, groups = tracks([[1, 1], [1, 1]])
    with pytest.raises(ValueError, match="between 0 and 1"):
        train_val_split(labels, groups, val_fraction=fraction, seed=0)


def test_refuses_a_group_of_several_classes() -> None:
    with pytest.raises(ValueError, match="several classes"):
        train_val_split(np.array([0, 1, 1]), np.array([0, 0, 1]), val_fraction=0.5, seed=0)
