"""The validation split."""

from __future__ import annotations

import numpy as np
import pytest

from vitexp.data.source import DataError
from vitexp.data.split import fold_split, refuse_unusable_folds, train_val_split


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


UNEVEN = [[30] * 13, [29, 30, 31, 7, 1, 60], [1] * 501, [1] * 5]


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_are_disjoint_and_together_all_images(folds: int) -> None:
    labels, groups = tracks(UNEVEN)
    parts = [fold_split(labels, groups, folds=folds, fold=fold, seed=3) for fold in range(folds)]
    for train, val in parts:
        assert sorted([*train, *val]) == list(range(len(labels)))
        assert not set(groups[train]) & set(groups[val])
        assert set(labels[train]) == set(labels[val]) == {0, 1, 2, 3}
    assert sorted(np.concatenate([val for _, val in parts])) == list(range(len(labels)))


def test_folds_have_the_same_number_of_images_of_every_class() -> None:
    labels, groups = tracks([[30] * 12, [1] * 501, [1] * 501, [1] * 501])
    vals = [fold_split(labels, groups, folds=4, fold=fold, seed=0)[1] for fold in range(4)]
    counts = np.stack([np.bincount(labels[val]) for val in vals])
    assert counts[:, 0].tolist() == [90] * 4
    assert np.ptp(counts, axis=0).tolist() == [0, 1, 1, 1]
    assert np.ptp(counts.sum(axis=1)) == 1  # the remainders of the classes are spread, too


def test_folds_depend_on_the_seed_only() -> None:
    labels, groups = tracks(UNEVEN)
    first, again, other = (fold_split(labels, groups, folds=5, fold=1, seed=seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(ValueError, match="fold=5 must be from 0 to 4"):
        fold_split(labels, groups, folds=5, fold=5, seed=0)


def refuse(folds: int, labels: np.ndarray, groups: np.ndarray, *, has_validation: bool = False) -> None:
    classes = ["a", "b", "c"][: labels.max() + 1]
    refuse_unusable_folds(folds, has_validation=has_validation, labels=labels, groups=groups, classes=classes)


def test_more_folds_than_groups_are_refused() -> None:
    images, of_tracks = tracks([[1] * 9, [1] * 3]), tracks([[30] * 9, [30] * 4, [30]])
    with pytest.raises(DataError, match=r"needs 5 training images of every class, but class b has 3; use data.folds=3"):
        refuse(5, *images)
    with pytest.raises(DataError, match=r"needs 5 groups of training images \(.*\) .* class c has 1; add some"):
        refuse(5, *of_tracks)
    refuse(3, *images)
    with pytest.raises(DataError, match=r"data.folds=3 takes .* has validation images of its own; use data.folds=null"):
        refuse(3, *images, has_validation=True)
