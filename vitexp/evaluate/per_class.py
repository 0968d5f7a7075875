"""Metrics by class, and the confusions that cost the most accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """The metrics of one class.

    precision is None if the class is never predicted, recall if it has no images.
    confidence: mean probability of the predicted class over its images.
    most_confused_with: the wrong class predicted most often for its images, most_confused_count times.
    """

    number: int
    name: str
    images: int
    correct: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float
    confidence: float | None
    most_confused_with: str
    most_confused_count: int


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """`count` images of class `true` predicted as `predicted`, out of `of` images of that class.

    cost: the accuracy that they cost, count / all images. share_of_class: count / of.
    """

    true: str
    predicted: str
    count: int
    of: int
    cost: float
    share_of_class: float


def class_rows(
    counts: NDArray[np.int64], names: Sequence[str], *, confidence: NDArray[np.floating], labels: NDArray[np.int64]
) -> list[ClassRow]:
    """Return the metrics of each class that has images or is predicted, in the order of the classes.

    counts: int64 [C, C], counts[true, predicted]. confidence: float [N], of each prediction; labels: int64 [N].
    """
    rows = []
    for number, name in enumerate(names):
        images, predicted, correct = (
            int(each) for each in (counts[number].sum(), counts[:, number].sum(), counts[number, number])
        )
        if not images and not predicted:
            continue
        wrong = counts[number].copy()
        wrong[number] = 0
        worst = int(wrong.argmax())
        rows.append(
            ClassRow(
                number=number,
                name=name,
                images=images,
                correct=correct,
                predicted=predicted,
                precision=correct / predicted if predicted else None,
                recall=correct / images if images else None,
                f1=2 * correct / (images + predicted),
                confidence=float(confidence[labels == number].mean()) if images else None,
                most_confused_with=names[worst] if wrong[worst] else "",
                most_confused_count=int(wrong[worst]),
            )
        )
    return rows


def confusions_by_cost(counts: NDArray[np.int64], names: Sequence[str]) -> list[Confusion]:
    """Return all confusions by decreasing cost, ties by decreasing share of their class."""
    total, support = int(counts.sum()), counts.sum(axis=1)
    confusions = [
        Confusion(
            true=names[true],
            predicted=names[predicted],
            count=int(counts[true, predicted]),
            of=int(support[true]),
            cost=int(counts[true, predicted]) / total,
            share_of_class=int(counts[true, predicted]) / int(support[true]),
        )
        for true, predicted in np.argwhere(counts > 0)
        if true != predicted
    ]
    return sorted(confusions, key=lambda each: (-each.count, -each.share_of_class))  # stable: then by class
