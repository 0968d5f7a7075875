"""How each class fares, and which confusions cost most."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class: its images, how many of them are found, and how it is wrong.

    precision is None where the class is never predicted, recall where it has no image, f1 where it has neither.
    confidence: mean probability of the predicted class over its images. most_confused_with: what its images are taken
    for most often, and how many of them are.
    """

    number: int
    name: str
    images: int
    correct: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    confidence: float | None
    most_confused_with: str
    most_confused_count: int


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Images of the class `true` that are taken for `predicted`.

    cost: the points of accuracy that these errors cost, a fraction of all images. share_of_class: of the images of the
    class, a fraction.
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
    """A row for every class that has images or is predicted, in the order of the classes.

    counts: [C, C], from `confusion_counts`. confidence: [N], of the prediction for each image; labels: int64 [N].
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
    """All confusions, the one that costs most accuracy first; among equals the one that costs its class more."""
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


def as_csv(rows: Sequence[ClassRow] | Sequence[Confusion], kind: type[ClassRow] | type[Confusion]) -> str:
    """All fields, fractions in full; what there is none of is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [each.name for each in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def classes_as_markdown(rows: Sequence[ClassRow]) -> str:
    """A table, the class that is found least often first."""
    heading = ("class", "images", "recall", "precision", "F1", "confidence", "most often taken for")
    ordered = sorted(rows, key=lambda row: (row.recall is None, row.recall))
    return _markdown(
        heading,
        [
            (
                row.name,
                f"{row.images:,}",
                *(percent(each) for each in (row.recall, row.precision, row.f1, row.confidence)),
                f"{row.most_confused_with} ({row.most_confused_count})" if row.most_confused_count else "",
            )
            for row in ordered
        ],
        left=(0, 6),
    )


def confusions_as_markdown(confusions: Sequence[Confusion]) -> str:
    """A table, in the order given."""
    heading = ("true", "predicted", "images", "of the class", "accuracy points")
    rows = [
        (each.true, each.predicted, f"{each.count:,} of {each.of:,}", percent(each.share_of_class), points(each.cost))
        for each in confusions
    ]
    return _markdown(heading, rows, left=(0, 1))


def percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{fraction:.2%}"


def points(fraction: float) -> str:
    """A loss in percentage points."""
    return f"{100 * fraction:.2f}"


def _markdown(heading: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> str:
    rule = ["---" if column in left else "---:" for column in range(len(heading))]
    lines = [heading, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
