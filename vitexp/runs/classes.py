"""Which class of the net a class of another data set is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitexp.errors import UserError


def match_classes(theirs: Sequence[str], ours: Sequence[str], *, name: str) -> NDArray[np.int64]:
    """For every class of the data set `name` the number of the same class of the net: int64 [len(theirs)].

    By name, whatever its case and spaces; a data set may have fewer classes than the net. Where the classes of one side
    are all called by numbers (folders 00000, 00001, ...), they are the numbers of the other side's classes.

    Raises UserError, in one sentence, where a class of the data set is none of the net, or two are the same.
    """
    plain_ours = {_plain(each): number for number, each in enumerate(ours)}
    by_name = [plain_ours.get(_plain(each)) for each in theirs]
    numbers_theirs, numbers_ours = _numbers(theirs), _numbers(ours)
    if None not in by_name:
        matched = by_name
    elif numbers_theirs is not None:
        matched = [number if number < len(ours) else None for number in numbers_theirs]
    elif numbers_ours is not None:
        matched = [numbers_ours.index(number) if number in numbers_ours else None for number in range(len(theirs))]
    else:
        matched = by_name
    unknown = [each for each, number in zip(theirs, matched, strict=True) if number is None]
    if unknown:
        some = ", ".join(repr(each) for each in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise UserError(
            f"{len(unknown)} of the {len(theirs)} classes of {name} are none of the net's {len(ours)} ({some}; the net "
            f"knows {', '.join(map(repr, ours[:3]))}, ...): both must have the same names, or be called by numbers."
        )
    known = [number for number in matched if number is not None]
    if len(set(known)) < len(known):
        raise UserError(f"two classes of {name} would be the same class of the net; their names must differ.")
    return np.array(known, np.int64)


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _numbers(names: Sequence[str]) -> list[int] | None:
    """The names as numbers, or None where one of them is no number."""
    return [int(name) for name in names] if all(name.isascii() and name.isdigit() for name in names) else None
