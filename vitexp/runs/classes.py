"""Match the classes of another data set to those of a network."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitexp.errors import UserError

_LISTED = 3  # classes in a message


@dataclass(frozen=True)
class Matching:
    """The network's label for each class of a data set, int64 [classes], and a phrase that says how they matched."""

    labels: NDArray[np.int64]
    how: str


def match_classes(theirs: Sequence[str], ours: Sequence[str], *, name: str, numbered: bool = True) -> Matching:
    """Match the classes of the data set `name` to those of a network; the data set may have fewer.

    Names match regardless of case, spaces and Unicode form, and names that are numbers match as numbers: "01" is "1".
    If the classes of one side are names and those of the other are numbers, these are labels, counted from 0.
    numbered: whether the order of `theirs` is official; otherwise their names must match.

    Raises UserError if a class is unknown to the network, or if the matching is ambiguous.
    """
    if _all_numbers(theirs) and not _any_number(ours):
        by, pairs = "number, counted from 0", {str(label): [label] for label in range(len(ours))}
        found = [pairs.get(_plain(each), []) for each in theirs]
    elif _all_numbers(ours) and numbered and not _any_number(theirs):
        by, places = "number, counted from 0", _places(ours)
        found = [places.get(str(label), []) for label in range(len(theirs))]
    else:
        by, places = "name", _places(ours)
        found = [[ours.index(each)] if each in ours else places.get(_plain(each), []) for each in theirs]
    _refuse_unknown([each for each, labels in zip(theirs, found, strict=True) if not labels], theirs, ours, name)
    _refuse_ambiguous(found, theirs, ours, name)
    labels = np.array([label for [label] in found], np.int64)
    return Matching(
        labels, f"{len(theirs)} of the network's {len(ours)}, matched by {by}{_examples(theirs, ours, labels)}"
    )


def _refuse_unknown(unknown: Sequence[str], theirs: Sequence[str], ours: Sequence[str], name: str) -> None:
    if unknown:
        numbers = "" if _any_number(ours) else f", or numbers from 0 to {len(ours) - 1}"
        raise UserError(
            f"the network does not know {len(unknown)} of the {len(theirs)} classes of {name} ({_some(unknown)}; its "
            f"{len(ours)} classes are {_some(ours)}); use the same names{numbers}."
        )


def _refuse_ambiguous(found: Sequence[list[int]], theirs: Sequence[str], ours: Sequence[str], name: str) -> None:
    matched: dict[int, str] = {}
    for each, labels in zip(theirs, found, strict=True):
        if len(labels) > 1:
            several = " or ".join(repr(ours[label]) for label in labels)
            raise UserError(f"class {each!r} of {name} could be {several} of the network; use exactly the same name.")
        [label] = labels
        if label in matched:
            raise UserError(
                f"two classes of {name}, {matched[label]!r} and {each!r}, match the same class of the network, "
                f"{ours[label]!r}; rename or merge them."
            )
        matched[label] = each


def _examples(theirs: Sequence[str], ours: Sequence[str], labels: NDArray[np.int64]) -> str:
    """Return examples of classes that are written differently; "" if there are none."""
    pairs = [(each, ours[label]) for each, label in zip(theirs, labels, strict=True) if each != ours[label]]
    shown = ", ".join(f"{each!r} is {our!r}" for each, our in pairs[:_LISTED])
    return f": {shown}{', ...' if len(pairs) > _LISTED else ''}" if pairs else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_LISTED])) + (", ..." if len(names) > _LISTED else "")


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the labels of each plain name; those of names that differ only in case, for example, have several."""
    places = defaultdict(list)
    for label, name in enumerate(names):
        places[_plain(name)].append(label)
    return dict(places)


def _plain(name: str) -> str:
    """Return a name such that names that mean the same are equal: "STOP " as "stop", "007" as "7"."""
    if is_number(name):
        return name.lstrip("0") or "0"
    # Folding may decompose letters and NFC composes them; macOS stores file names decomposed.
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).split())


def is_number(name: str) -> bool:
    """Return whether the name of a class is a number, as in 00000, 00001, ..."""
    return name.isascii() and name.isdigit()


def _all_numbers(names: Sequence[str]) -> bool:
    return all(map(is_number, names))


def _any_number(names: Sequence[str]) -> bool:
    return any(map(is_number, names))
