"""The parts of a data set, training, validation and test, as folders and files name them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from vitexp.data.source import DataError, printable
from vitexp.text import plural, shortened

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


def unknown_classes(unknown: Sequence[Path], known: Collection[str], *, train: Path) -> str:
    """Return a phrase about class folders of other parts that the training part does not have; "" if there are none.

    known: the classes of the training part. train: its folder.
    """
    if not unknown:
        return ""
    verb = "is a class that is" if len(unknown) == 1 else "are classes that are"
    return (
        f"{shortened(list(map(printable, unknown)))} {verb} missing from {printable(train)}, which has "
        f"{shortened(list(map(printable, known)))}; give the same class the same name in both, or add training images"
    )


def refuse_unusable_classes(classes: Sequence[str], *, name: str) -> None:
    """Raise DataError if there are fewer than two classes, or several with one name. name: of the data set."""
    if len(classes) < 2:
        raise DataError(f"{name} has only one class ({classes[0]}); a classifier needs two or more.")
    if doubled := [each for each, count in Counter(classes).items() if count > 1]:
        raise DataError(f"{name} has several classes named {doubled[0]!r}; every class needs its own name.")


def alike(classes: Iterable[str], *, where: str) -> str:
    """Return a phrase about classes whose names differ only in letter case or spaces, such as Cat and cat; "" if none.

    Of a single letter, upper and lower case are different classes. where: what contains the classes.
    """
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(" ".join(unicodedata.normalize("NFC", name).casefold().split()), []).append(name)
    doubled = [names for plain, names in groups.items() if len(plain) > 1 and len(names) > 1]
    if not doubled:
        return ""
    pairs = shortened([" / ".join(map(printable, names)) for names in doubled], most=3)
    return f"{where} has classes whose names differ only in letter case or spaces, {pairs}; merge or rename them"


def too_few_images(counts: Mapping[str, int], *, where: str, split_off: Sequence[str] = ()) -> str:
    """Return a phrase about classes with too few training images; "" if there are none.

    counts: images by class. where: what contains them. split_off: the parts that each take an image of every class.
    """
    least = 1 + len(split_off)
    few = {printable(name): count for name, count in counts.items() if count < least}
    if not few:
        return ""
    needed = f"{least}, one each for {shortened(['training', *split_off])}" if split_off else "one"
    if len(few) == 1:
        [(name, count)] = few.items()
        return f"class {name} has {plural(count, 'image')} in {where}, but needs {needed}; add some or remove it"
    if not any(few.values()):
        has, named = "no image", shortened(list(few))
    else:
        has, named = "too few images", shortened([f"{name} ({count})" for name, count in few.items()])
    return f"{len(few):,} classes have {has} in {where}, {named}; each needs {needed}: add some or remove the classes"


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
