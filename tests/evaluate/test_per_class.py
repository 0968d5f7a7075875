"""The per-class table against one counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vitexp.evaluate.per_class import (
    ClassRow,
    class_rows,
    confusions_by_cost,
)
from vitexp.evaluate.tables import class_table, confusion_table
from vitexp.explain.figures import confusion_counts

NAMES = ["a", "b|c", "d", "e"]
# true:      a  a  a  a  b  b  d; no image is of class e, or predicted as e
LABELS = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 1, 0, 0])
CONFIDENCE = np.array([0.9, 0.7, 0.5, 0.3, 0.8, 0.6, 0.4])


@pytest.fixture
def counts() -> np.ndarray:
    return confusion_counts(PREDICTED, LABELS, 4)


def rows(counts: np.ndarray) -> list[ClassRow]:
    return class_rows(counts, NAMES, confidence=CONFIDENCE, labels=LABELS)


def test_rows(counts: np.ndarray) -> None:
    a, b, d = rows(counts)  # and no e
    assert (a.images, a.correct, a.predicted) == (4, 2, 4)
    assert (a.precision, a.recall, a.f1) == (0.5, 0.5, 0.5)
    assert a.confidence == pytest.approx(0.6)
    assert (a.most_confused_with, a.most_confused_count) == ("b|c", 2)
    assert (b.precision, b.recall, b.f1) == (pytest.approx(1 / 3), 0.5, pytest.approx(0.4))
    assert (d.precision, d.recall, d.f1) == (None, 0.0, 0.0)


def test_a_class_without_images_that_is_predicted_has_no_recall() -> None:
    counts = confusion_counts(np.array([1]), np.array([0]), 2)
    _, other = class_rows(counts, ["a", "b"], confidence=np.array([0.5]), labels=np.array([0]))
    assert (other.images, other.precision, other.recall, other.confidence) == (0, 0.0, None, None)


def test_confusions_come_by_cost_and_among_equals_by_their_share_of_the_class(counts: np.ndarray) -> None:
    found = confusions_by_cost(counts, NAMES)
    assert [(each.true, each.predicted, each.count, each.of) for each in found] == [
        ("a", "b|c", 2, 4),
        ("d", "a", 1, 1),
        ("b|c", "a", 1, 2),
    ]
    assert found[0].cost == pytest.approx(2 / 7)
    assert sum(each.cost for each in found) == pytest.approx(np.mean(PREDICTED != LABELS))


def test_markdown_has_the_worst_class_first_and_as_many_cells_a_row(counts: np.ndarray) -> None:
    for table in (class_table(rows(counts)).markdown(), confusion_table(confusions_by_cost(counts, NAMES)).markdown()):
        lines = table.splitlines()
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert [line.split(" | ")[0] for line in class_table(rows(counts)).markdown().splitlines()[2:]] == [
        "| d",
        "| a",
        "| b\\|c",
    ]
