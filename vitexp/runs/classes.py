"""Match the classes of another data set to those of a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitexp.errors import UserError


def match_classes(theirs: Sequence[str], ours: Sequence[str], *, name: str) -> NDArray[np.int64]:
    """Return, for each class of the data set `name`, the network's label for the same class: int64 [len(theirs)].

    Classes are matched by name, regardless of case and spaces; the data set may have fewer. If all classes on one
    side are numbers (folders 00000, 00001, ...), they are labels of the other side.

    Raises UserError if a class of the data set is unknown to the network, or if two match the same class.
    """
    plain_ours = {_plain(each): label for label, each in enumerate(ours)}
    by_name = [plain_ours.get(_plain(each)) for each in theirs]
    numbers_theirs, numbers_ours = _numbers(theirs), _numbers(ours)
    if None not in by_name:
        matched = by_name
    elif numbers_theirs is not None:
        matched = [number if number < len(ours) else None for number in numbers_theirs]
    elif numbers_ours is not None:
        matched = [numbers_ours.index(label) if label in numbers_ours else None for label in range(len(theirs))]
    else:
        matched = by_name
    unknown = [each for each, label in zip(theirs, matched, strict=True) if label is None]
    if unknown:
        some = ", ".join(map(repr, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
        raise UserError(
            f"the network does not know {len(unknown)} of the {len(theirs)} classes of {name} ({some}; its "
            f"{len(ours)} classes are {', '.join(map(repr, ours[:3]))}, ...); use the same names, or numbers."
        )
    known = [label for label in matched if label is not None]
    if len(set(known)) < len(known):
        raise UserError(f"two classes of {name} match the same class of the network; their names must differ.")
    return np.array(known, np.int64)


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _numbers(names: Sequence[str]) -> list[int] | None:
    """Return the names as numbers; None if one of them is not a number."""
    return [int(name) for name in names] if all(name.isascii() and name.isdigit() for name in names) else None
