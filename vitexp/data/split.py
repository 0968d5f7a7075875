"""The validation split: whole groups from the training images, balanced by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitexp.data.source import DataError, printable

Indices = NDArray[np.int64]


def train_val_split(labels: Indices, groups: Indices, *, val_fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Split images into training and validation, keeping groups whole.

    For each class, randomly drawn groups go to validation as long as each brings the class closer to `val_fraction` of
    its images: at least one group if the class has two or more, and never all of them.

    labels, groups: int64 [N]; a group belongs to one class.

    Returns the sorted indices of training and validation, int64 each. Raises ValueError for a fraction outside (0, 1)
    and for a group with several labels.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} must be between 0 and 1, both excluded")
    random = np.random.default_rng(seed)
    label_of_group, group_of_image, sizes = _groups(labels, groups)
    in_val = np.zeros(len(sizes), dtype=bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(label_of_group == label))
        wanted = val_fraction * sizes[members].sum()
        taken = 0
        for group in members[:-1]:
            if taken == 0 or abs(taken + sizes[group] - wanted) < abs(taken - wanted):
                in_val[group] = True
                taken += sizes[group]
    chosen = in_val[group_of_image]
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def fold_split(labels: Indices, groups: Indices, *, folds: int, fold: int, seed: int) -> tuple[Indices, Indices]:
    """Split images into all folds but one, for training, and fold number `fold`, for validation.

    For each class, its groups are shuffled and then, the largest first, added to the fold with the fewest images of the
    class, and the fewest in total among those. With the same seed, the folds are disjoint and together all images.

    labels, groups: int64 [N]; a group belongs to one class, and each class has `folds` groups or more.

    Returns the sorted indices of training and validation, int64 each. Raises ValueError for a fold outside
    [0, folds) and for a group with several labels.
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold={fold} must be from 0 to {folds - 1}")
    random = np.random.default_rng(seed)
    label_of_group, group_of_image, sizes = _groups(labels, groups)
    fold_of_group = np.empty(len(sizes), dtype=np.int64)
    in_fold = [0] * folds
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(label_of_group == label))
        of_class = [0] * folds
        for group in members[np.argsort(-sizes[members], kind="stable")]:
            place = min(range(folds), key=lambda each: (of_class[each], in_fold[each]))
            fold_of_group[group] = place
            of_class[place] += int(sizes[group])
            in_fold[place] += int(sizes[group])
    chosen = fold_of_group[group_of_image] == fold
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def refuse_unusable_folds(
    folds: int, *, has_validation: bool, labels: Indices, groups: Indices, classes: Sequence[str]
) -> None:
    """Raise DataError if a class has fewer groups than there are folds, or nothing remains to be chosen.

    has_validation: whether the data set has validation images of its own. labels, groups: int64 [N], of its training
    images.
    """
    if has_validation:
        raise DataError(
            f"data.folds={folds} takes the validation images from the training images, but this data set has "
            "validation images of its own; use data.folds=null, or move them to the training images."
        )
    label_of_group, *_ = _groups(labels, groups)
    counts = np.bincount(label_of_group, minlength=len(classes))
    rarest = int(counts.argmin())
    if (count := int(counts[rarest])) >= folds:
        return
    single = len(labels) == len(label_of_group)
    kind = "training images" if single else "groups of training images (such as tracks, which are not split)"
    remedy = f"use data.folds={count} or less" if count > 1 else "add some, or remove the class"
    raise DataError(
        f"data.folds={folds} needs {folds} {kind} of every class, but class {printable(classes[rarest])} has "
        f"{count}; {remedy}."
    )


def _groups(labels: Indices, groups: Indices) -> tuple[Indices, Indices, Indices]:
    """Return label and number of images of each group, int64 [G], and the index of the group of each image, [N]."""
    _, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    label_of_group = labels[first]
    if not np.array_equal(label_of_group[inverse], labels):
        raise ValueError("a group contains images of several classes")
    return label_of_group, inverse, sizes
