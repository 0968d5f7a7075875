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
    assert match_classes(theirs, OURS, name="set").labels.tolist() == matched


def test_numbered_classes_of_the_network() -> None:
    assert match_classes(OURS, ["02", "00", "01"], name="set").labels.tolist() == [1, 2, 0]
    assert match_classes(["0", "1"], ["1", "00"], name="set").labels.tolist() == [1, 0]  # both are numbers
    with pytest.raises(UserError, match="use the same names"):  # the order of their names means nothing
        match_classes(OURS, ["0", "1", "2"], name="set", numbered=False)


@pytest.mark.parametrize(
    ("theirs", "ours", "labels", "how"),
    [
        (["A", "a"], ["a", "A"], [1, 0], "2 of the network's 2, matched by name"),
        (["STRASSE", "E\u0301"], ["straße", "é", "e"], [0, 1], "by name: 'STRASSE' is 'straße', 'E\u0301' is 'é'"),
        (
            ["1", "02", "3", "4", "5"],
            ["05", "04", "03", "2", "1"],
            [4, 3, 2, 1, 0],
            "'02' is '2', '3' is '03', '4' is '04', ...",
        ),
        (["1"], OURS, [1], "1 of the network's 3, matched by number, counted from 0: '1' is 'Yield'"),
        (OURS, ["2", "1", "0"], [2, 1, 0], "by number, counted from 0: 'Stop' is '0', "),
    ],
)
def test_how_classes_matched(theirs: list[str], ours: list[str], labels: list[int], how: str) -> None:
    matching = match_classes(theirs, ours, name="set")
    assert matching.labels.tolist() == labels and how in matching.how


def test_ambiguous_names_are_refused() -> None:
    with pytest.raises(UserError, match="class 'STOP' of set could be 'Stop' or 'stop' of the network"):
        match_classes(["STOP"], ["Stop", "stop"], name="set")
    with pytest.raises(UserError, match="class '001' of set could be '1' or '01' of the network"):
        match_classes(["001"], ["1", "01"], name="set")


def test_numbers_are_not_labels_of_a_network_with_numbers() -> None:
    with pytest.raises(UserError, match=r"does not know 1 of the 2 classes of set \('0'; .*; use the same names\.$"):
        match_classes(["0", "1"], ["1", "2"], name="set")


@pytest.mark.parametrize("theirs", [["Stop", "Go"], ["0", "3"], ["0", "Stop"], ["Stop", "Yield", "No entry", "x"]])
def test_unknown_classes_are_refused(theirs: list[str]) -> None:
    with pytest.raises(UserError, match=f"of the {len(theirs)} classes of set .*; its 3 classes are"):
        match_classes(theirs, OURS, name="set")


def test_equal_classes_are_refused() -> None:
    with pytest.raises(UserError, match="two classes of set"):
        match_classes(["01", "1"], OURS, name="set")
    with pytest.raises(UserError, match=r"two classes of set, 'Stop' and 'stop', match .* 'Stop'; rename or merge"):
        match_classes(["Stop", "stop"], OURS, name="set")
