"""The validation split: whole groups from the training images, balanced by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def train_val_split(
    labels: NDArray[np.int64], groups: NDArray[np.int64], *, val_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
    unique, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    label_of_group = labels[first]
    if not np.array_equal(label_of_group[inverse], labels):
        raise ValueError("a group contains images of several classes")
    in_val = np.zeros(len(unique), dtype=bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(label_of_group == label))
        wanted = val_fraction * sizes[members].sum()
        taken = 0
        for group in members[:-1]:
            if taken == 0 or abs(taken + sizes[group] - wanted) < abs(taken - wanted):
                in_val[group] = True
                taken += sizes[group]
    chosen = in_val[inverse]
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
