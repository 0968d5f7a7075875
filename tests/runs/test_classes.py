from __future__ import annotations

import pytest

from vitexp.errors import UserError
from vitexp.runs.classes import match_classes

OURS = ["Stop", "Yield", "No entry"]


@pytest.mark.parametrize(
    ("theirs", "matched"),
    [
        (["Stop", "Yield", "No entry"], [0, 1, 2]),
        (["no  ENTRY", "stop"], [2, 0]),  # fewer, in another order
        (["00002", "00000"], [2, 0]),
        (["1"], [1]),
    ],
)
def test_by_name_or_number(theirs: list[str], matched: list[int]) -> None:
    assert match_classes(theirs, OURS, name="set").tolist() == matched


def test_numbered_classes_of_the_network() -> None:
    assert match_classes(OURS, ["2", "0", "1"], name="set").tolist() == [1, 2, 0]
    assert match_classes(["0", "1"], ["1", "0"], name="set").tolist() == [1, 0]  # both are numbered: matched by name


@pytest.mark.parametrize("theirs", [["Stop", "Go"], ["0", "3"], ["0", "Stop"], ["Stop", "Yield", "No entry", "x"]])
def test_unknown_classes_are_refused(theirs: list[str]) -> None:
    with pytest.raises(UserError, match=f"of the {len(theirs)} classes of set .*; its 3 classes are"):
        match_classes(theirs, OURS, name="set")


def test_equal_classes_are_refused() -> None:
    with pytest.raises(UserError, match="two classes of set"):
        match_classes(["01", "1"], OURS, name="set")
