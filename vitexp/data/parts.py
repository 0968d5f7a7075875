"""The parts of a data set, training, validation and test, as folders and files name them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from vitexp.data.source import DataError, printable
from vitexp.text import shortened

Part: TypeAlias = Literal["train", "val", "test"]
_NAMES: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def part_of(name: str) -> Part | None:
    """Return which part a folder or file called `name` contains, in any letter case; None for any other name."""
    return _NAMES.get(name.casefold())


def named_parts(names: Iterable[str], *, within: str) -> dict[Part, str]:
    """Return the name of each part that is among `names`. Raises DataError if a part has two names."""
    found: dict[Part, str] = {}
    for name in names:
        if (part := part_of(name)) is None:
            continue
        if part in found:
            raise DataError(f"{within} contains both {found[part]} and {name}; merge them, or rename one.")
        found[part] = name
    return found


def refuse_unknown_classes(names: Iterable[str], known: Collection[str], *, part: Path, train: Path) -> None:
    """Raise DataError if a part has classes that the training part does not have. part, train: for the message."""
    if unknown := [printable(part / name) for name in names if name not in known]:
        verb = "is a class that is" if len(unknown) == 1 else "are classes that are"
        raise DataError(
            f"{shortened(unknown)} {verb} missing from {printable(train)}, which has "
            f"{shortened([printable(name) for name in known])}; give the same class the same name in both."
        )


def roles(found: Collection[Part]) -> tuple[Part | None, Part | None]:
    """Return which parts are for validation and testing; None: split from the training part.

    Without a test part, the validation part is the test set, as in ImageNet. It then may not choose anything, so that
    validation images are split from the training part.
    """
    val: Part | None = "val" if "val" in found else None
    return (val, "test") if "test" in found else (None, val)


def about_roles(found: Mapping[Part, str], *, test_fraction: float, split_seed: int) -> str:
    """Return a phrase about how test images are chosen; "" if there is a test part."""
    if "test" in found:
        return ""
    if "val" in found:
        return (
            f"{printable(found['val'])} is the test set because there is no test part, and validation images are "
            "taken from the training part"
        )
    return f"{test_fraction:.0%} of every class are test images (split_seed={split_seed})"


def rank(seed: int, name: str) -> bytes:
    """Return a sort key that shuffles names independently of each other, so that a new one moves few others."""
    return hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest()


def test_count(images: int, test_fraction: float) -> int:
    """Return how many images of a class become test images: at least one, but one remains for training."""
    return min(max(round(images * test_fraction), 1), images - 1)


def natural(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts class2 before class10."""
    pieces = re.split(r"(\d+)", name.casefold())  # text and digits alternate
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], name
